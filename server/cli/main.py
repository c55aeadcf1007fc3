"""The `gram` command. Heavy imports stand in the commands that need them, so that `--help` answers at once."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict

from gram.models.config import ZOO, CheckpointError, describe, read_config
from gram.models.tasks import TASKS, PuzzleError
from gram.server import logs
from gram.server.api.keys import LABEL, Key, KeysError, digest, new_key
from gram.server.catalog import LoadedModel, bundled_models, choose, model_name, read_models
from gram.server.cli.batch import ENDINGS, BatchError, Format, Line, Output, read_lines, solve_here, solve_there, spelled
from gram.server.cli.drawing import draw
from gram.server.client import Client, GramError
from gram.server.sampling.answers import Event, SolveResponse, StartEvent
from gram.server.sampling.options import GenerateOptions, Heats, Options
from gram.server.sampling.requests import GenerateRequest, SamplingRequest, SolveRequest
from gram.server.settings import Device, DeviceError, EngineSettings, ServerSettings

if TYPE_CHECKING:
    from gram.server.engine.engine import Engine

_Calls = tuple[Callable[..., SolveResponse], Callable[..., AbstractContextManager[Iterator[Event]]]]


class CommandError(Exception):
    """What went wrong and what to do, for the terminal."""


class Serve(ServerSettings):
    """Serve the models over HTTP until Ctrl-C."""

    def cli_cmd(self) -> None:
        import uvloop

        from gram.server.api.app import serve
        from gram.server.supervision.errors import EngineUnavailableError

        logs.configure(self.log_format)
        try:
            uvloop.run(serve(self))
        except EngineUnavailableError as error:
            raise CommandError(str(error)) from error


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

    def _calls(self, client: Client) -> _Calls:
        """How a server is asked: for the answer alone, or also for what comes before it."""
        raise NotImplementedError

    def _request(self, task: str) -> dict[str, object]:
        return {"task": task, **self._given(), **self.model_dump(include=set(Options.model_fields), by_alias=True)}

    def _there(self, watch: bool) -> Generator[Event]:
        """The answer of a server, and to `watch` what comes before it."""
        request = self._request(self._task_there)
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

    def _calls(self, client: Client) -> _Calls:
        return client.solve, client.solve_stream


class Generate(GenerateOptions, Sampling):
    """Make new boards here, or on a server with --url, and draw them."""

    request_type = GenerateRequest

    def _calls(self, client: Client) -> _Calls:
        return client.generate, client.generate_stream


class Train(BaseModel):
    """Train a checkpoint by a recipe; a run that was cut off goes on where it last saved."""

    recipe: CliPositionalArg[Path] = Field(description="a TOML file, such as models/zoo/nqueens-8/train.toml")
    out: Path | None = Field(None, description="the checkpoint's folder (default: the recipe's)")
    device: Device = Field("auto", description="auto takes a CUDA GPU if there is one")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")
    compile: bool = Field(False, description="torch.compile: about 1.6 times as fast on a CPU; needs a C++ compiler")

    def cli_cmd(self) -> None:
        import torch

        try:
            from gram.models.training.recipe import ConfigError, load_training_config
            from gram.models.training.trainer import train
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; training needs more packages: pip install -e '.[train]'") from error

        from gram.server.engine.device import choose_device

        if self.threads:
            torch.set_num_threads(self.threads)
        out = self.out or self.recipe.parent
        device = choose_device(self.device)
        if device.type == "cuda":  # torchrun gives each process a device of its own
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        try:
            written = train(load_training_config(self.recipe), out, device=device, compile=self.compile)
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if written:
            print(f"wrote {out}; measure it with: gram eval {out}")


class Eval(EngineSettings):
    """Measure checkpoints on held-out puzzles, or from the empty input; print the figures, save them beside the weights."""

    model: CliPositionalArg[list[Path]] = Field([], description="checkpoint folders")
    all: bool = Field(False, description="measure all bundled checkpoints")
    samples: int = Field(20, ge=1, description="trajectories per puzzle")
    boards: int = Field(10_000, ge=1, description="trajectories from the empty input, of checkpoints that generate")
    temperatures: list[Heats] = Field(
        [1.0],
        min_length=1,
        description="each is evaluated over all held-out puzzles and boards; a list in it is that of each supervision step",
    )
    symmetries: list[bool] = Field(
        [True, False], min_length=1, description="whether each trajectory sees an image of the puzzle: each is evaluated"
    )
    max_steps: int = Field(16, ge=1)
    grid_puzzles: int = Field(50, ge=0, description="so many puzzles of each set are also run without halting")
    grid_depth: int | None = Field(
        None, ge=1, description="supervision steps of those runs, read at 1, 2, 4, ... of them (default: the task's, 32 or 128)"
    )
    seed: int = 0
    puzzles: int | None = Field(None, ge=1, description="only so many puzzles of each set, evenly through it")
    limit: int | None = Field(None, ge=1, description="only this many puzzles of each set, or boards, and nothing is saved")

    def cli_cmd(self) -> None:
        if self.all == bool(self.model):
            raise CommandError("name the folders of the checkpoints to measure, or say --all for all bundled ones")
        try:
            from gram.models.evaluation.report import save, tables, zoo_table
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; evaluation needs more packages: pip install -e '.[train]'") from error

        from gram.server.evaluation import evaluate_checkpoint

        for folder in self.model or bundled_models():
            figures = evaluate_checkpoint(folder, self)
            task = TASKS[read_config(folder).task]
            print(f"\n# {model_name(folder)}\n\n{tables(task, figures)}")
            if self.limit is None:
                save(folder, self._command(folder), task, figures)
        if self.all and self.limit is None:
            print(f"\n{zoo_table(bundled_models())}")

    def _command(self, folder: Path) -> str:
        """What measures the checkpoint again and gives the same figures: with the device and dtype that "auto" came to."""
        from gram.server.engine.device import resolve

        placement = resolve(self)
        placed = {"device": placement.device.type, "dtype": str(placement.dtype).removeprefix("torch.")}
        # Slots and threads change no figure; and a path is of use on this machine alone, unless it is in the repository.
        options = self.model_copy(update=placed).model_dump(exclude={"model", "all", "slots", "threads"}, exclude_defaults=True)
        path, repository = folder.resolve(), ZOO.parents[1]
        words = ["gram", "eval", str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)


class Bench(EngineSettings):
    """Measure what this machine can do, and how near to it the kernels, the supervision step and the engine come."""

    json_file: Path | None = Field(None, alias="json", description="a file to write the same figures to")

    def cli_cmd(self) -> None:
        from gram.server.bench import measure

        report = measure(self)
        print(report.text())
        if self.json_file:
            self.json_file.write_text(report.model_dump_json(indent=2) + "\n")


class MakeKey(BaseModel):
    """Make an API key, and the lines for the server's --keys-file that let it in."""

    label: CliPositionalArg[str] = Field(pattern=LABEL, description="its name in the metrics and the log")
    requests_per_second: float | None = Field(None, gt=0, description="more are refused (default: any number)")
    admin: bool = Field(False, description="let it load and unload models")

    def cli_cmd(self) -> None:
        key = new_key()
        entry = Key(sha256=digest(key), requests_per_second=self.requests_per_second, admin=self.admin)
        print(f"# the key, which is shown here alone: {key}", file=sys.stderr)
        print(entry.toml(self.label))


class Gram(BaseModel):
    """GRAM: sample many latent trajectories, rank them, check every answer."""

    serve: CliSubCommand[Serve] = Field(description=Serve.__doc__)
    solve: CliSubCommand[Solve] = Field(description=Solve.__doc__)
    generate: CliSubCommand[Generate] = Field(description=Generate.__doc__)
    train: CliSubCommand[Train] = Field(description=Train.__doc__)
    eval: CliSubCommand[Eval] = Field(description=Eval.__doc__)
    bench: CliSubCommand[Bench] = Field(description=Bench.__doc__)
    key: CliSubCommand[MakeKey] = Field(description=MakeKey.__doc__)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main() -> None:
    """Run the command line; errors end in a message and exit code 2 (1 where the work itself failed)."""
    sys.argv[0] = "gram"  # however it was started, help speaks of the command
    try:
        CliApp.run(Gram, cli_settings_source=None)
    except (CommandError, BatchError, CheckpointError, DeviceError, GramError, KeysError, PuzzleError) as error:
        sys.exit(f"gram: {error}")
    except ValidationError as error:
        sys.exit(f"gram: {describe(error)}; see gram --help")
    except BrokenPipeError:  # whoever reads, head say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain of it at its end
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
