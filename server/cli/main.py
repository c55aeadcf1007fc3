"""The `gram` command. A command imports what is heavy when it runs, so that `--help` answers at once."""

import os
import sys

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliApp, CliSubCommand

from gram.models.config import CheckpointError, describe
from gram.models.data_sets import DataSetError
from gram.models.tasks import PuzzleError
from gram.server.api.keys import KeysError
from gram.server.cli.bench import Bench
from gram.server.cli.errors import CommandError
from gram.server.cli.evaluate import Eval
from gram.server.cli.importing import Import
from gram.server.cli.jobs import Jobs
from gram.server.cli.key import MakeKey
from gram.server.cli.serve import Serve
from gram.server.cli.solve import Generate, Solve
from gram.server.cli.trace import Trace
from gram.server.cli.train import Train
from gram.server.client.errors import GramError
from gram.server.inputs.errors import InputError
from gram.server.jobs.errors import StoreError
from gram.server.settings import DeviceError


class Gram(BaseModel):
    """GRAM: sample many latent trajectories of a puzzle, rank them, and check every answer."""

    serve: CliSubCommand[Serve] = Field(description=Serve.__doc__)
    solve: CliSubCommand[Solve] = Field(description=Solve.__doc__)
    generate: CliSubCommand[Generate] = Field(description=Generate.__doc__)
    train: CliSubCommand[Train] = Field(description=Train.__doc__)
    eval: CliSubCommand[Eval] = Field(description=Eval.__doc__)
    trace: CliSubCommand[Trace] = Field(description=Trace.__doc__)
    import_: CliSubCommand[Import] = Field(alias="import", description=Import.__doc__)
    bench: CliSubCommand[Bench] = Field(description=Bench.__doc__)
    jobs: CliSubCommand[Jobs] = Field(description=Jobs.__doc__)
    key: CliSubCommand[MakeKey] = Field(description=MakeKey.__doc__)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


_ERRORS = (
    CommandError,
    CheckpointError,
    DataSetError,
    DeviceError,
    GramError,
    InputError,
    KeysError,
    PuzzleError,
    StoreError,
)


def main() -> None:
    """Run the command line. An error ends it with a message and exit code 2, or 1 if the work itself failed."""
    sys.argv[0] = "gram"  # however it was started, --help shows the name of the command
    try:
        CliApp.run(Gram, cli_settings_source=None)
    except _ERRORS as error:
        sys.exit(f"gram: {error}")
    except ValidationError as error:
        sys.exit(f"gram: {describe(error)}; see gram --help")
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python would complain at its exit
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
