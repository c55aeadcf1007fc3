"""`gram eval`."""

import json
import shlex
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from gram.models.config import ZOO, read_config
from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models, model_name
from gram.server.cli.errors import CommandError
from gram.server.evaluation.settings import EvaluationSettings


class Eval(EvaluationSettings):
    """Measure checkpoints on held-out puzzles and from the empty input; print the figures and save them beside the weights."""

    model: CliPositionalArg[list[Path]] = Field([], description="folders of checkpoints to measure")
    all: bool = Field(False, description="measure all bundled checkpoints")

    def cli_cmd(self) -> None:
        if self.all == bool(self.model):
            raise CommandError("name the folders of the checkpoints to measure, or use --all for all bundled ones")
        try:
            from gram.models.evaluation.report import band_tables, overview, save, tables, zoo_table
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; evaluation needs more packages: pip install -e '.[train]'") from error

        from gram.server.evaluation.evaluate import evaluate_checkpoint

        for folder in self.model or bundled_models():
            figures = evaluate_checkpoint(folder, self)
            task = TASKS[read_config(folder).task]
            print(f"\n# {model_name(folder)}\n\n{tables(task, figures)}")
            if self.limit is None:
                save(folder, self._command(folder), task, figures)
        if self.all and self.limit is None:
            print(f"\n# For docs/models.md\n\n{zoo_table(bundled_models())}\n\n{band_tables(bundled_models())}")
            print(f"\n# For README.md\n\n{overview(bundled_models())}")

    def _command(self, folder: Path) -> str:
        """The command that measures the checkpoint again, on the same device and in the same dtype."""
        from gram.server.engine.device import resolve

        placement = resolve(self)
        placed = {"device": placement.device.type, "dtype": str(placement.dtype).removeprefix("torch.")}
        # Slots and threads change no figure. A path outside of the repository means nothing on another machine.
        options = self.model_copy(update=placed).model_dump(exclude={"model", "all", "slots", "threads"}, exclude_defaults=True)
        path, repository = folder.resolve(), ZOO.resolve().parents[1]
        words = ["gram", "eval", str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)
