"""The `gram` command. Heavy imports stand in the commands that need them, so that `--help` answers at once."""

import contextlib
import itertools
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import ClassVar

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict

from models.config import ZOO, CheckpointError, describe, read_config
from models.tasks import TASKS, PuzzleError
from server import logs
from server.api.keys import LABEL, Key, KeysError, digest, new_key
from server.api.schemas import GenerateOptions, GenerateRequest, Options, SamplingRequest, SolveRequest, SolveResponse
from server.api.service import choose, read_models
from server.settings import Device, DeviceError, EngineSettings, ServerSettings, bundled_models, model_name

_LINE_LENGTH = 120
"""Of the drawings in a terminal."""


class CommandError(Exception):
    """What went wrong and what to do, for the terminal."""


class Serve(ServerSettings):
    """Serve the models over HTTP until Ctrl-C."""

    def cli_cmd(self) -> None:
        import uvloop

        from server.api.app import serve
        from server.supervisor import EngineUnavailableError

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

    def cli_cmd(self) -> None:
        response = self._remote() if self.url else self._local()
        print(response.model_dump_json(indent=2) if self.json_output else draw(response))

    def _given(self) -> dict[str, object]:
        """What the request has beside the task and the options."""
        return {}

    def _request(self, task: str) -> SamplingRequest:
        options = self.model_dump(include=set(Options.model_fields), by_alias=True)
        return self.request_type.model_validate({"task": task, **self._given(), **options})

    def _remote(self) -> SolveResponse:
        request = self._request(self.task or next(iter(TASKS)))
        try:
            headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            body = request.model_dump(by_alias=True)
            response = httpx.post(f"{self.url}/v1/{request.ability}", json=body, headers=headers, timeout=None)
        except httpx.HTTPError as error:
            raise CommandError(f"{self.url} does not answer: {error}") from error
        if response.is_error:
            raise CommandError(f"{self.url} answered {response.status_code}: {response.json()['detail']}")
        return SolveResponse.model_validate_json(response.content)

    def _local(self) -> SolveResponse:
        ability = self.request_type.ability
        able = [model for model in read_models(self.model).values() if ability in model.config.abilities]
        chosen = choose(able, self.task)
        if chosen is None:
            names = ", ".join(model.name for model in able) or "none"
            raise CommandError(f"no model can {ability} {self.task or 'anything'}; models that {ability}: {names}")
        puzzle = self._request(chosen.task.name).input(chosen.task)

        from server.engine.loop import Engine
        from server.local import run
        from server.solving import Collector

        engine = Engine(self.for_checkpoint(chosen.folder))
        collector = Collector(chosen.task, puzzle, self.num_trajectories, self.stop)
        seed = self.chosen_seed()
        begin = time.monotonic()
        for trajectory in run(engine, [self.submit(0, chosen.name, puzzle, seed)], in_flight=1):
            collector.add(trajectory)
            if collector.done:
                break
        return SolveResponse.of(chosen.name, collector, seed, self, 0.0, time.monotonic() - begin)


class Solve(Sampling):
    """Solve a puzzle here, or on a server with --url, and draw the answers."""

    request_type = SolveRequest

    puzzle: CliPositionalArg[str] = Field(
        description="in any spelling that GET /v1/tasks lists; lists and objects as JSON; - reads it from standard input"
    )

    def _given(self) -> dict[str, object]:
        return {"puzzle": self._read_puzzle()}

    def _read_puzzle(self) -> object:
        text = sys.stdin.read() if self.puzzle == "-" else self.puzzle
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(text)
            if isinstance(value, (list, dict)):
                return value
        return text


class Generate(GenerateOptions, Sampling):
    """Make new boards here, or on a server with --url, and draw them."""

    request_type = GenerateRequest


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
            from models.training.config import ConfigError, load_training_config
            from models.training.loop import train
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; training needs more packages: pip install -e '.[train]'") from error

        from server.engine.device import choose_device

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
    temperatures: list[float] = Field(
        [1.0, 1.5, 2.0], min_length=1, description="each is evaluated over all held-out puzzles and boards"
    )
    max_steps: int = Field(16, ge=1)
    grid_puzzles: int = Field(50, ge=1, description="so many puzzles of each set are also run without halting")
    grid_depth: int | None = Field(
        None, ge=1, description="supervision steps of those runs, read at 1, 2, 4, ... of them (default: the task's, 32 or 128)"
    )
    seed: int = 0
    limit: int | None = Field(None, ge=1, description="only this many puzzles of each set, and nothing is saved")

    def cli_cmd(self) -> None:
        if self.all == bool(self.model):
            raise CommandError("name the folders of the checkpoints to measure, or say --all for all bundled ones")
        try:
            from models.report import save, tables, zoo_table
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; evaluation needs more packages: pip install -e '.[train]'") from error

        from server.evaluation import evaluate_checkpoint

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
        from server.engine.device import resolve

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
        from server.bench import measure

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


def _spaced(row: str) -> str:
    """A row of a board with its symbols apart; a line of a graph, which has words, as it is."""
    return row if " " in row else " ".join(row)


def draw(response: SolveResponse) -> str:
    """The puzzle and the answers side by side, for a terminal."""
    boards = [("puzzle", response.puzzle.text)]
    for candidate in response.candidates:
        mark = "valid" if candidate.valid else "WRONG"
        boards.append((f"{mark} {candidate.score:.3f} x{candidate.votes}", candidate.text))
    columns = [[title, *map(_spaced, text.split("\n"))] for title, text in boards]
    width = max(len(line) for column in columns for line in column) + 3
    per_line = max(1, _LINE_LENGTH // width)
    lines = []
    for start in range(0, len(columns), per_line):
        group = columns[start : start + per_line]
        lines += ["".join(line.ljust(width) for line in row).rstrip() for row in itertools.zip_longest(*group, fillvalue="")]
        lines.append("")
    lines.append(
        f"{response.distinct_valid} distinct valid answers from {response.trajectories} trajectories, "
        f"{response.steps_run} steps in {response.compute_ms / 1e3:.2f} s, seed {response.seed}"
    )
    return "\n".join(lines)


def main() -> None:
    """Run the command line; errors end in a message and exit code 2 (1 where the work itself failed)."""
    sys.argv[0] = "gram"  # however it was started, help speaks of the command
    try:
        CliApp.run(Gram, cli_settings_source=None)
    except (CommandError, CheckpointError, DeviceError, KeysError, PuzzleError) as error:
        sys.exit(f"gram: {error}")
    except ValidationError as error:
        sys.exit(f"gram: {describe(error)}; see gram --help")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
