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
        description="address of a Ray cluster (auto: this machine's), on which to run --engines engines, each with --threads "
        "CPUs, or a GPU with --device cuda; needs gram-server[ray]",
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
        if self.ray is None:
            import uvloop

            from gram.server.api.app import serve

            uvloop.run(serve(settings))
            return
        try:
            from gram.server.ray.start import serve_on
        except ModuleNotFoundError as error:
            raise CommandError(f"--ray needs {error.name}, which is not installed: pip install 'gram-server[ray]'") from error
        serve_on(self.ray, settings)
