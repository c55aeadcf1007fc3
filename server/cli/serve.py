"""`gram serve`."""

from pydantic import Field

from gram.server import logs
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import local
from gram.server.settings import ServerSettings


class Serve(ServerSettings):
    """Serve the models over HTTP until Ctrl-C."""

    ray: str | None = Field(
        None,
        description="address of a Ray cluster, or auto for that of this machine: the --engines run there, each with --threads "
        "CPUs, or with --device cuda a GPU; needs gram-server[ray] (default: the engines run here)",
    )

    def cli_cmd(self) -> None:
        from gram.server.supervision.errors import EngineUnavailableError

        logs.configure(self.log_format)
        settings = self.model_copy(update={"model": local(self.model)})
        try:
            self._serve(settings)
        except EngineUnavailableError as error:
            raise CommandError(str(error)) from error

    def _serve(self, settings: ServerSettings) -> None:
        import uvloop

        from gram.server.api.app import serve

        if self.ray is None:
            uvloop.run(serve(settings))
            return
        try:
            from gram.server.ray.start import fleet_on
        except ModuleNotFoundError as error:
            raise CommandError(f"--ray needs {error.name}, which is not installed: pip install 'gram-server[ray]'") from error
        with fleet_on(self.ray, settings) as fleet:
            uvloop.run(serve(settings, fleet))
