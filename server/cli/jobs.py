"""`gram jobs`: work that a server does by and by."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, CliPositionalArg, CliSubCommand

from gram.server.cli.errors import CommandError
from gram.server.inputs.files import spelled
from gram.server.sampling.options import Options
from gram.server.settings import FROM_ENVIRONMENT

if TYPE_CHECKING:
    from gram.server.client.client import Client
    from gram.server.jobs.schemas import JobInfo

_POLL_SECONDS = 0.5


class _There(BaseSettings):
    """Which server is asked."""

    model_config = FROM_ENVIRONMENT

    url: str = Field("http://127.0.0.1:8000", description="address of the server")
    api_key: str | None = Field(None, description="API key of that server, if it needs one; better set in GRAM_API_KEY")

    def _client(self) -> "Client":
        from gram.server.client.client import Client

        return Client(self.url, api_key=self.api_key)


class Submit(Options, _There):
    """Submit a file of puzzles, or one puzzle, and print the job's id. Files are those of `gram solve --input`."""

    model_config = FROM_ENVIRONMENT

    file: CliPositionalArg[Path | None] = Field(None, description="the file; - reads standard input")
    puzzle: str | None = Field(None, description="one puzzle, instead of a file")
    task: str | None = Field(None, description="the kind of puzzle (default: that of the first model that reads the file)")
    model: str | None = Field(None, description="the model that answers")

    def cli_cmd(self) -> None:
        if (self.file is None) == (self.puzzle is None):
            raise CommandError("give either a file of puzzles or --puzzle")
        options = {
            name: value for name, value in self.model_dump(include=set(Options.model_fields)).items() if value is not None
        }
        with self._client() as client:
            if self.puzzle is not None:
                puzzle = spelled(self.puzzle)[0]
                job = client.submit([puzzle], task=self.task, model=self.model, **options)
            else:
                job = client.submit(_content(self.file), task=self.task, model=self.model, **options)
        print(job.id)


def _content(file: Path | None) -> bytes:
    try:
        return sys.stdin.buffer.read() if file is None or file == Path("-") else file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error


class List(_There):
    """List your jobs, the newest first."""

    def cli_cmd(self) -> None:
        with self._client() as client:
            for job in client.jobs():
                print(_line(job))


class Show(_There):
    """Show a job as JSON."""

    id: CliPositionalArg[str] = Field(description="the job's id")

    def cli_cmd(self) -> None:
        with self._client() as client:
            print(client.job(self.id).model_dump_json(indent=2))


class Results(_There):
    """Print the results of a job, a line of JSON each, in the order of the puzzles, as far as there are any."""

    id: CliPositionalArg[str] = Field(description="the job's id")
    start: int = Field(0, ge=0, description="the index of the first result")
    wait: bool = Field(False, description="wait until the job is done")

    def cli_cmd(self) -> None:
        following = self.start
        with self._client() as client:
            while True:
                done = client.job(self.id).state == "done"
                for result in client.job_results(self.id, start=following):
                    print(result.model_dump_json(), flush=True)
                    following = result.index + 1
                if done or not self.wait:
                    return
                time.sleep(_POLL_SECONDS)


class Cancel(_There):
    """Cancel a job, and delete its results."""

    id: CliPositionalArg[str] = Field(description="the job's id")

    def cli_cmd(self) -> None:
        with self._client() as client:
            client.delete_job(self.id)


class Jobs(BaseModel):
    """Jobs of a server, which outlive the connection and the server: submit, list, show, results, cancel."""

    submit: CliSubCommand[Submit] = Field(description=Submit.__doc__)
    list: CliSubCommand[List] = Field(description=List.__doc__)
    show: CliSubCommand[Show] = Field(description=Show.__doc__)
    results: CliSubCommand[Results] = Field(description=Results.__doc__)
    cancel: CliSubCommand[Cancel] = Field(description=Cancel.__doc__)

    def cli_cmd(self) -> None:
        from pydantic_settings import CliApp

        CliApp.run_subcommand(self)


def _line(job: "JobInfo") -> str:
    failed = f", {job.failed} failed" if job.failed else ""
    waits = f" ({job.waits})" if job.waits else ""
    return f"{job.id}  {job.state}{waits}  {job.done}/{job.puzzles}{failed}  {job.model}  {job.created:%Y-%m-%d %H:%M}"
