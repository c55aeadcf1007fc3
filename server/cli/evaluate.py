"""`gram eval`."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from gram.models.config import ZOO, read_config
from gram.models.tasks import PuzzleError, Task, Tokens, task_of
from gram.server.catalog import bundled_models, model_name
from gram.server.cli.errors import CommandError
from gram.server.cli.inputs import PuzzleFile
from gram.server.evaluation.settings import EvaluationSettings


def _puzzles(path: Path, task: Task) -> Tokens:
    """The puzzles of a file [n, N]. Says what can't be measured, and which answers of the file are wrong."""
    puzzles, unread, wrong = [], [], []
    for line in PuzzleFile(path, [task]):
        try:
            puzzle = task.read(line.puzzle)
            task.solvable(puzzle)
            puzzles.append(puzzle)
            if line.answer is not None and not task.check(puzzle, task.read(line.answer)):
                wrong.append(line.number)
        except PuzzleError as error:
            unread.append(f"line {line.number}: {error}")
    for found, what in ((unread, "left out"), (wrong, "with an answer that does not solve the puzzle")):
        if found:
            print(f"gram: {path}: {len(found)} {what}, the first: {found[0]}", file=sys.stderr)
    if not puzzles:
        raise CommandError(f"{path} has no puzzle of {task.name}")
    return np.stack(puzzles)


class Eval(EvaluationSettings):
    """Measure checkpoints on held-out puzzles and from the empty input; print the figures and save them beside the weights."""

    model: CliPositionalArg[list[Path]] = Field([], description="folders of checkpoints to measure")
    all: bool = Field(False, description="measure all bundled checkpoints")
    data: Path | None = Field(
        None,
        description="measure on the puzzles of a file, in place of the held-out ones, and save nothing; any file that "
        "gram solve --input reads",
    )

    def cli_cmd(self) -> None:
        if self.all == bool(self.model):
            raise CommandError("name the folders of the checkpoints to measure, or use --all for all bundled ones")
        try:
            from gram.models.evaluation.report import band_tables, overview, save, tables, zoo_table
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; evaluation needs more packages: pip install -e '.[train]'") from error

        from gram.server.evaluation.evaluate import evaluate_checkpoint

        for folder in self.model or bundled_models():
            task = task_of(read_config(folder))
            test_sets = {self.data.name: _puzzles(self.data, task)} if self.data else None
            figures = evaluate_checkpoint(folder, self, test_sets)
            print(f"\n# {model_name(folder)}\n\n{tables(task, figures)}")
            if self.limit is None and self.data is None:
                save(folder, self._command(folder), task, figures)
        if self.all and self.limit is None and self.data is None:
            print(f"\n# For docs/models.md\n\n{zoo_table(bundled_models())}\n\n{band_tables(bundled_models())}")
            print(f"\n# For README.md\n\n{overview(bundled_models())}")

    def _command(self, folder: Path) -> str:
        """The command that measures the checkpoint again, on the same device and in the same dtype."""
        from gram.server.engine.device import resolve

        placement = resolve(self)
        placed = {"device": placement.device.type, "dtype": str(placement.dtype).removeprefix("torch.")}
        # Slots and threads change no figure. A path outside of the repository means nothing on another machine.
        options = self.model_copy(update=placed).model_dump(
            exclude={"model", "all", "data", "slots", "threads"}, exclude_defaults=True
        )
        path, repository = folder.resolve(), ZOO.resolve().parents[1]
        words = ["gram", "eval", str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)
