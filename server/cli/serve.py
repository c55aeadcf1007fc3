"""`gram serve`."""

from gram.server import logs
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import local
from gram.server.settings import ServerSettings


class Serve(ServerSettings):
    """Serve the models over HTTP until Ctrl-C."""

    def cli_cmd(self) -> None:
        import uvloop

        from gram.server.api.app import serve
        from gram.server.supervision.errors import EngineUnavailableError

        logs.configure(self.log_format)
        settings = self.model_copy(update={"model": local(self.model)})
        try:
            uvloop.run(serve(settings))
        except EngineUnavailableError as error:
            raise CommandError(str(error)) from error
