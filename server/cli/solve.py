"""`gram solve` and `gram generate`, on a running server or with an engine in this process."""

import asyncio
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from gram.models.tasks import TASKS
from gram.server.catalog import LoadedModel, choose, read_models
from gram.server.cli.batch import ENDINGS, Format, Line, Output, read_lines, solve_here, solve_there, spelled
from gram.server.cli.drawing import draw
from gram.server.cli.errors import CommandError
from gram.server.sampling.answers import Event, SolveResponse, StartEvent
from gram.server.sampling.options import GenerateOptions, Options
from gram.server.sampling.requests import GenerateRequest, SamplingRequest, SolveRequest
from gram.server.settings import EngineSettings

if TYPE_CHECKING:
    from gram.server.client.client import Client
    from gram.server.engine.engine import Engine

_Calls = tuple[Callable[..., SolveResponse], Callable[..., AbstractContextManager[Iterator[Event]]]]


class Sampling(Options, EngineSettings):
    """What `gram solve` and `gram generate` share."""

    model_config = SettingsConfigDict(env_prefix="GRAM_", extra="ignore")
    request_type: ClassVar[type[SamplingRequest]]

    task: str | None = Field(None, description="the kind of puzzle (default: the first loaded model's)")
    url: str | None = Field(None, description="a running server; without it the model runs in this process")
    api_key: str | None = Field(None, description="a key of that server, where it asks for one; rather in GRAM_API_KEY")
    json_output: bool = Field(False, alias="json", description="print the response as JSON")
    watch: bool = Field(False, description="show the trajectories on their way, where standard output is a terminal")

    def cli_cmd(self) -> None:
        watch = self.watch and sys.stdout.isatty()
        response: Event
        with closing(self._there(watch) if self.url else self._here(watch)) as events:
            if watch:
                from gram.server.cli.watch import show

                response = show(events)
            else:
                (response,) = events
        assert isinstance(response, SolveResponse), "the last event is the result"
        print(response.model_dump_json(indent=2) if self.json_output else draw(response))

    def _given(self) -> dict[str, object]:
        """What the request has beside the task and the options."""
        return {}

    def _calls(self, client: "Client") -> _Calls:
        """How a server is asked: for the answer alone, or also for what comes before it."""
        raise NotImplementedError

    def _request(self, task: str) -> dict[str, object]:
        return {"task": task, **self._given(), **self.model_dump(include=set(Options.model_fields), by_alias=True)}

    def _there(self, watch: bool) -> Generator[Event]:
        """The answer of a server, and to `watch` what comes before it."""
        request = self._request(self._task_there)
        from gram.server.client.client import Client

        with Client(self.url or "", api_key=self.api_key, timeout=None) as client:
            ask, stream = self._calls(client)
            if watch:
                with stream(**request, stream_steps=True) as events:
                    yield from events
            else:
                yield ask(**request)

    def _here(self, watch: bool) -> Generator[Event]:
        """The same of an engine in this process."""
        model = self._model()
        puzzle = self.request_type.model_validate(self._request(model.task.name)).input(model.task)
        seed = self.chosen_seed()
        engine = self._engine(model)

        from gram.server.local import solve

        if watch:
            yield StartEvent.of(model.name, model.task, puzzle, seed, self)
        for _, event in solve(engine, model.task, [(0, puzzle, seed)], self, watch=watch):
            yield event

    @property
    def _task_there(self) -> str:
        return self.task or next(iter(TASKS))

    def _model(self) -> LoadedModel:
        """What answers in this process."""
        ability = self.request_type.ability
        able = [model for model in read_models(self.model).values() if ability in model.config.abilities]
        chosen = choose(able, self.task)
        if chosen is None:
            names = ", ".join(model.name for model in able) or "none"
            raise CommandError(f"no model can {ability} {self.task or 'anything'}; models that {ability}: {names}")
        return chosen

    def _engine(self, model: LoadedModel) -> "Engine":
        from gram.server.engine.engine import Engine

        return Engine(self.for_checkpoint(model.folder))


class Solve(Sampling):
    """Solve a puzzle, or a file of them, here or on a server with --url.

    A file has a puzzle a line, in any spelling that fits one: a text, or JSON (a text, a list, an object; also
    {"puzzle": ...}). Line n gets the seed + n - 1. Each is answered by a line of NDJSON (its number as "line", and the
    response without its times), or a row of CSV (the best answer alone), in the order of the input. A wrong puzzle is
    answered by its error; the exit code is then 1. A run that was cut off goes on where its --output ends.
    """

    request_type = SolveRequest

    puzzle: CliPositionalArg[str | None] = Field(
        None, description="in any spelling that GET /v1/tasks lists; lists and objects as JSON; - reads it from standard input"
    )
    input: Path | None = Field(None, description="many puzzles: a file with one a line; - reads them from standard input")
    output: Path | None = Field(
        None, description=f"of --input: where the answers go, in a format by its ending: {', '.join(ENDINGS)}"
    )
    format: Format | None = Field(None, description="of --input: whatever the ending; on standard output ndjson by default")

    def cli_cmd(self) -> None:
        if (self.puzzle is None) == (self.input is None):
            raise CommandError("name a puzzle, or with --input a file of them")
        if self.input is None:
            if self.output or self.format:
                raise CommandError("--output and --format are of --input; for one puzzle there is --json")
            super().cli_cmd()
        else:
            if self.watch or self.json_output:
                raise CommandError("--watch and --json are of one puzzle; --input has --format")
            self._solve_all(read_lines(self.input))

    def _solve_all(self, lines: list[Line]) -> None:
        with Output(lines, self.output, self.format) as output:
            if not output.waiting:
                pass
            elif self.url:
                asyncio.run(solve_there(output, self.url, self.api_key, self._task_there, self))
            else:
                model = self._model()
                solve_here(output, self._engine(model), model.task, self)
        if output.failed:
            raise CommandError(f"{output.failed} of {len(lines)} puzzles have no answer; their lines say why")

    def _given(self) -> dict[str, object]:
        return {"puzzle": spelled(sys.stdin.read() if self.puzzle == "-" else self.puzzle or "")}

    def _calls(self, client: "Client") -> _Calls:
        return client.solve, client.solve_stream


class Generate(GenerateOptions, Sampling):
    """Make new boards here, or on a server with --url, and draw them."""

    request_type = GenerateRequest

    def _calls(self, client: "Client") -> _Calls:
        return client.generate, client.generate_stream
