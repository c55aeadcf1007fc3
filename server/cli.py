"""The `gram` command. Heavy imports stand in the commands that need them, so that `--help` answers at once."""

import contextlib
import json
import logging
import sys
import time
from pathlib import Path

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict

from models.config import EVALUATION_FILE, CheckpointError, describe, read_config
from models.tasks import TASKS, PuzzleError
from server.api.schemas import Options, SolveResponse
from server.api.service import read_models
from server.settings import EngineSettings, ServerSettings, bundled_models, model_name


class CommandError(Exception):
    """What went wrong and what to do, for the terminal."""


class Serve(ServerSettings):
    """Serve the models over HTTP until Ctrl-C."""

    def cli_cmd(self) -> None:
        import uvloop

        from server.api.app import serve
        from server.supervisor import EngineUnavailableError

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        try:
            uvloop.run(serve(self))
        except EngineUnavailableError as error:
            raise CommandError(f"no engine can answer: {error}") from error


class Solve(Options, EngineSettings):
    """Solve a puzzle here, or on a server with --url, and draw the answers."""

    model_config = SettingsConfigDict(env_prefix="GRAM_", extra="ignore")

    puzzle: CliPositionalArg[str] = Field(
        description="in any spelling that GET /v1/tasks lists; lists and objects as JSON; - reads it from standard input"
    )
    task: str | None = Field(None, description="the kind of puzzle (default: the first loaded model's)")
    url: str | None = Field(None, description="a running server; without it the model runs in this process")
    json_output: bool = Field(False, alias="json", description="print the response as JSON")

    def cli_cmd(self) -> None:
        response = self._remote() if self.url else self._local()
        print(response.model_dump_json(indent=2) if self.json_output else draw(response))

    def _read_puzzle(self) -> object:
        text = sys.stdin.read() if self.puzzle == "-" else self.puzzle
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(text)
            if isinstance(value, (list, dict)):
                return value
        return text

    def _remote(self) -> SolveResponse:
        options = {name: getattr(self, name) for name in Options.model_fields}
        body = {"puzzle": self._read_puzzle(), "task": self.task or next(iter(TASKS)), **options}
        try:
            response = httpx.post(f"{self.url}/v1/solve", json=body, timeout=None)
        except httpx.HTTPError as error:
            raise CommandError(f"{self.url} does not answer: {error}") from error
        if response.is_error:
            raise CommandError(f"{self.url} answered {response.status_code}: {response.json()['detail']}")
        return SolveResponse.model_validate_json(response.content)

    def _local(self) -> SolveResponse:
        models = read_models(self.model)
        chosen = next((m for m in models.values() if self.task in (None, m.task.name)), None)
        if chosen is None:
            raise CommandError(f"no model for the task {self.task!r}; models: {', '.join(models)}")
        puzzle = chosen.task.parse(self._read_puzzle())

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


class Train(BaseModel):
    """Train a checkpoint by a recipe; a run that was cut off goes on where it last saved."""

    recipe: CliPositionalArg[Path] = Field(description="a TOML file, such as models/zoo/nqueens-8/train.toml")
    out: Path | None = Field(None, description="the checkpoint's folder (default: the recipe's)")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")
    compile: bool = Field(False, description="torch.compile: about 1.6 times as fast on a CPU; needs a C++ compiler")

    def cli_cmd(self) -> None:
        import torch

        from models.training.config import ConfigError, load_training_config
        from models.training.loop import train

        if self.threads:
            torch.set_num_threads(self.threads)
        out = self.out or self.recipe.parent
        try:
            train(load_training_config(self.recipe), out, compile=self.compile)
        except ConfigError as error:
            raise CommandError(str(error)) from error
        print(f"wrote {out}; measure it with: gram eval {out}")


class Eval(EngineSettings):
    """Measure checkpoints on their tasks' held-out puzzles, print the figures and save them beside the weights."""

    model: CliPositionalArg[list[Path]] = Field(
        default_factory=bundled_models, description="checkpoint folders (default: all bundled ones)"
    )
    samples: int = Field(20, ge=1, description="trajectories per puzzle")
    temperatures: list[float] = Field([1.0, 1.5, 2.0], description="each is evaluated over all held-out puzzles")
    max_steps: int = Field(16, ge=1)
    seed: int = 0
    limit: int | None = Field(None, ge=1, description="only this many puzzles of each set, and nothing is saved")

    def cli_cmd(self) -> None:
        from server.evaluation import evaluate_checkpoint, table

        for folder in self.model:
            evaluations = evaluate_checkpoint(folder, self)
            print(f"\n{model_name(folder)}: {self.samples} samples of each held-out puzzle")
            print(table(evaluations, TASKS[read_config(folder).task].paper))
            if self.limit is None:
                (folder / EVALUATION_FILE).write_text(json.dumps([e.model_dump() for e in evaluations], indent=2) + "\n")


class Gram(BaseModel):
    """GRAM: sample many latent trajectories, rank them, check every answer."""

    serve: CliSubCommand[Serve] = Field(description=Serve.__doc__)
    solve: CliSubCommand[Solve] = Field(description=Solve.__doc__)
    train: CliSubCommand[Train] = Field(description=Train.__doc__)
    eval: CliSubCommand[Eval] = Field(description=Eval.__doc__)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def draw(response: SolveResponse) -> str:
    """The puzzle and the answers side by side, for a terminal."""
    boards = [("puzzle", response.puzzle.text)]
    for candidate in response.candidates:
        mark = "valid" if candidate.valid else "WRONG"
        boards.append((f"{mark} {candidate.score:.3f} x{candidate.votes}", candidate.text))
    width = max(len(title) for title, _ in boards) + 3
    per_line = 4
    lines = []
    for start in range(0, len(boards), per_line):
        group = boards[start : start + per_line]
        lines.append("".join(title.ljust(width) for title, _ in group))
        for row in zip(*(text.split("\n") for _, text in group), strict=True):
            lines.append("".join(" ".join(cells).ljust(width) for cells in row))
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
    except (CommandError, CheckpointError, PuzzleError) as error:
        sys.exit(f"gram: {error}")
    except ValidationError as error:
        sys.exit(f"gram: {describe(error)}; see gram --help")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
