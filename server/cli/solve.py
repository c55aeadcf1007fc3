"""`gram solve` and `gram generate`, on a running server or with an engine in this process."""

import asyncio
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from pydantic_settings import CliPositionalArg

from gram.models.config import ModelConfig
from gram.models.tasks import TASKS, Plain, Task, readings
from gram.server.catalog import LoadedModel, choose, read_models
from gram.server.cli.batch import ENDINGS, Format, Output, solve_here, solve_there
from gram.server.cli.drawing import draw
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import local
from gram.server.inputs.files import PuzzleFile, spelled
from gram.server.sampling.answers import Event, SolveResponse, StartEvent
from gram.server.sampling.options import GenerateOptions, Options
from gram.server.sampling.requests import GenerateRequest, SamplingRequest, SolveRequest
from gram.server.settings import FROM_ENVIRONMENT, EngineSettings

if TYPE_CHECKING:
    from gram.server.client.client import Client
    from gram.server.engine.engine import Engine

_Calls = tuple[Callable[..., SolveResponse], Callable[..., AbstractContextManager[Iterator[Event]]]]


class Sampling(Options, EngineSettings):
    """What `gram solve` and `gram generate` share."""

    model_config = FROM_ENVIRONMENT
    request_type: ClassVar[type[SamplingRequest]]

    task: str | None = Field(None, description="the kind of puzzle (default: that of the first loaded model that reads it)")
    url: str | None = Field(None, description="ask the server at this address; without it the model runs in this process")
    api_key: str | None = Field(None, description="API key of that server, if it needs one; better set in GRAM_API_KEY")
    json_output: bool = Field(False, alias="json", description="print the response as JSON")
    watch: bool = Field(False, description="show the trajectories on their way, if standard output is a terminal")

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
        """The fields of the request beside the task and the options."""
        return {}

    def _calls(self, client: "Client") -> _Calls:
        """The client's methods that ask for the answer alone, and for a stream."""
        raise NotImplementedError

    def _request(self, task: str | None) -> dict[str, object]:
        return {"task": task, **self._given(), **self.model_dump(include=set(Options.model_fields), by_alias=True)}

    def _there(self, watch: bool) -> Generator[Event]:
        """The events from a server: the answer, and with `watch` those before it."""
        request = self._request(self.task or self._default_task([*TASKS.values()]))
        from gram.server.client.client import Client

        with Client(self.url or "", api_key=self.api_key, timeout=None) as client:
            ask, stream = self._calls(client)
            if watch:
                with stream(**request, stream_steps=True) as events:
                    yield from events
            else:
                yield ask(**request)

    def _here(self, watch: bool) -> Generator[Event]:
        """The same events, from an engine in this process."""
        able = self._able()
        task_name = self.task or self._default_task([model.task for model in able])
        request = self.request_type.model_validate(self._request(task_name))
        model = self._model(able, request.meant([model.task for model in able]))
        self._refuse(model.task)
        task, puzzle = request.input(model.task)
        solutions = task.solvable(puzzle)
        seed = self.chosen_seed()
        engine = self._engine(model)

        from gram.server.local import Question, solve

        if watch:
            yield StartEvent.of(model.name, task, puzzle, seed, self)
        for _, event in solve(engine, [Question(0, task, puzzle, solutions, seed)], self, watch=watch):
            yield event

    def _default_task(self, tasks: list[Task]) -> str | None:
        """The task of a request that names none, of those that can be had; None if none will do."""
        return tasks[0].name

    def _able(self) -> list[LoadedModel]:
        """The models that can do what is asked, one at least."""
        ability = self.request_type.ability
        self.model = local(self.model)
        if able := [model for model in read_models(self.model).values() if model.config.can(ability)]:
            return able
        raise CommandError(f"no model can {ability} anything")

    def _model(self, able: list[LoadedModel], task: str | None) -> LoadedModel:
        """The model that answers in this process."""
        if chosen := choose(able, task):
            return chosen
        ability = self.request_type.ability
        names = ", ".join(model.name for model in able)
        raise CommandError(f"no model can {ability} {task}; models that can {ability}: {names}")

    def _refuse(self, task: Task) -> None:
        """Raise CommandError if the options can't be asked of this task."""
        if refusal := self.refusal(task):
            raise CommandError(refusal)

    def _engine(self, model: LoadedModel) -> "Engine":
        from gram.server.engine.engine import Engine

        return Engine(self.for_checkpoint(model.folder))


class Solve(Sampling):
    """Solve a puzzle or a file of puzzles, in this process or with --url on a server.

    A file has one puzzle a line, in any spelling that fits on a line: plain text, or JSON (a string, a list, an object, or
    {"puzzle": ...}). Line n is solved with seed + n - 1. The answers come in the order of the input: a line of NDJSON
    each (its number as "line", and the response without its times), or a row of CSV (the best answer only). A puzzle that can't
    be read is answered by its error, and the exit code is then 1. A run that was cut off resumes where its --output ends.
    """

    request_type = SolveRequest

    puzzle: CliPositionalArg[str | None] = Field(
        None,
        description="the puzzle, in any spelling that GET /v1/tasks lists, lists and objects as JSON; - reads standard input",
    )
    input: Path | None = Field(
        None, description="a file with one puzzle a line, or CSV with a column of puzzles; - reads standard input"
    )
    output: Path | None = Field(
        None, description=f"where the answers to --input go; the ending chooses the format: {', '.join(ENDINGS)}"
    )
    format: Format | None = Field(
        None, description="format of the answers to --input (default: by the ending of --output; ndjson on standard output)"
    )

    def cli_cmd(self) -> None:
        if (self.puzzle is None) == (self.input is None):
            raise CommandError("give either a puzzle or --input with a file of puzzles")
        if self.input is None:
            if self.output or self.format:
                raise CommandError("--output and --format need --input; for one puzzle use --json")
            super().cli_cmd()
        else:
            if self.watch or self.json_output:
                raise CommandError("--watch and --json work with one puzzle; with --input use --format")
            self._solve_all(self.input)

    def _solve_all(self, path: Path) -> None:
        puzzles = PuzzleFile(path, self._tasks())
        with Output(puzzles, puzzles.task, self.output, self.format) as output:
            if output.complete:
                pass
            elif self.url:
                asyncio.run(solve_there(output, self.url, self.api_key, puzzles.task.name, self))
            else:
                model = self._model(self._able(), puzzles.task.name)
                self._refuse(model.task)
                solve_here(output, self._engine(model), model.task, self)
        if output.compared:
            print(f"gram: {output.right} of {output.compared} first candidates are the answer in {path}", file=sys.stderr)
        if output.failed:
            raise CommandError(f"{output.failed} of {len(puzzles)} puzzles have no answer; their lines in the output say why")

    def _tasks(self) -> list[Task]:
        """The tasks of which a file of puzzles may be. Raises CommandError."""
        if self.task in TASKS:
            return [TASKS[self.task]]
        if self.task is None:
            return [*TASKS.values()] if self.url else [*dict.fromkeys(model.task for model in self._able())]
        known = self._plain_there(self.url) if self.url else {model.task.name: model.task for model in self._able()}
        if self.task in known:
            return [known[self.task]]
        raise CommandError(f"unknown task {self.task!r}; known tasks: {', '.join({**TASKS, **known})}")

    def _plain_there(self, url: str) -> dict[str, Task]:
        """The tasks without code of the models on a server."""
        from gram.server.client.client import Client

        with Client(url, api_key=self.api_key) as client:
            models = [(model.task, ModelConfig.model_validate(model.config)) for model in client.models()]
        return {task: Plain(task, config.seq_len, config.vocab_size) for task, config in models if task not in TASKS}

    def _default_task(self, tasks: list[Task]) -> str | None:
        return next(iter(readings(self._given()["puzzle"], tasks)), None)

    def _given(self) -> dict[str, object]:
        if self.puzzle == "-":
            self.puzzle = sys.stdin.read()
        return {"puzzle": spelled(self.puzzle or "")[0]}

    def _calls(self, client: "Client") -> _Calls:
        return client.solve, client.solve_stream


class Generate(GenerateOptions, Sampling):
    """Make new boards, in this process or with --url on a server, and draw them."""

    request_type = GenerateRequest

    def _calls(self, client: "Client") -> _Calls:
        return client.generate, client.generate_stream
