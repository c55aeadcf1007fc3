"""`gram eval`."""

import itertools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from gram.models.config import ZOO, read_config
from gram.models.tasks import task_of
from gram.server.catalog import LoadedModel, bundled_models, model_name, read_models
from gram.server.cli.cases import Cases
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import local
from gram.server.evaluation.settings import EvaluationSettings
from gram.server.inputs.files import PuzzleFile
from gram.server.sampling.options import Halt, LatentNoise, Noise, Options


class Eval(EvaluationSettings):
    """Measure checkpoints on held-out puzzles and from the empty input; print the figures and save them beside the weights."""

    model: CliPositionalArg[list[Path]] = Field([], description="checkpoints to measure: folders, or hf:OWNER/NAME@REVISION")
    all: bool = Field(False, description="measure all bundled checkpoints")
    data: Path | None = Field(
        None,
        description="measure on the puzzles of a data set folder or a file, in place of the held-out ones, and save nothing; "
        "whatever gram solve --input reads",
    )
    halt: Halt | None = Field(
        None, description="with --data: when trajectories halt, as in a request (default: measure auto, and then never)"
    )
    noise: Noise = Field("learned", description="with --data: what makes trajectories differ, as in a request")

    def cli_cmd(self) -> None:
        if self.all == bool(self.model):
            raise CommandError("name the folders of the checkpoints to measure, or use --all for all bundled ones")
        self.model = local(self.model)
        if self.data:
            for folder in self.model or bundled_models():
                self._measure(folder, self.data)
        elif self.halt or self.noise != "learned":
            raise CommandError("--halt and --noise go with --data: without it, figures are those of the model's own halting")
        else:
            self._evaluate()

    def _measure(self, folder: Path, path: Path) -> None:
        """Print how the checkpoint answers the puzzles of a file."""
        from gram.server.engine.engine import Engine
        from gram.server.evaluation.measure import measure
        from gram.server.evaluation.summary import summary

        (model,) = read_models([folder]).values()
        cases = Cases(PuzzleFile(path, [model.task]), self.puzzles, self.limit)
        engine, measured = Engine(self.for_checkpoint(folder)), []
        for options in self._ways(model):
            measured.append(measure(engine, cases, len(cases), options, f"halting {options.halt}"))
            if not measured[0].puzzles:
                cases.tell(str(path))
                raise CommandError(f"{path} has no puzzle of {model.task.name} that can be measured")
        cases.tell(str(path))
        known = measured[0].exact.puzzles
        print(f"\n# {model.name} on {path}\n")
        print(
            f"{measured[0].puzzles:,} puzzles, {known:,} with a known answer; at most {self.max_steps} steps, seed {self.seed}."
        )
        print(f"\n{summary(measured)}")

    def _ways(self, model: LoadedModel) -> Iterator[Options]:
        """The ways to sample. Where nothing makes trajectories differ, one stands for all of them."""
        halts: list[Halt] = [self.halt] if self.halt else ["auto", "never"]
        symmetries = self.symmetries if model.task.num_draws else [False]
        has_noise = isinstance(self.noise, LatentNoise)
        has_noise |= self.noise == "learned" and model.config.model.guidance != "none"
        for halt, symmetry, temperature in itertools.product(halts, symmetries, self.temperatures):
            yield Options(
                num_trajectories=self.samples if symmetry or has_noise else 1,
                max_steps=self.max_steps,
                seed=self.seed,
                halt=halt,
                noise=self.noise,
                symmetries=symmetry,
                temperature=temperature,
            )

    def _evaluate(self) -> None:
        try:
            from gram.models.evaluation.report import band_tables, overview, save, tables, zoo_table
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; evaluation needs more packages: pip install -e '.[train]'") from error

        from gram.server.evaluation.evaluate import evaluate_checkpoint

        for folder in self.model or bundled_models():
            task = task_of(read_config(folder))
            if not task.checked:
                raise CommandError(f"{folder}: {task.name} has no held-out puzzles; name a data set with --data")
            figures = evaluate_checkpoint(folder, self)
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
        options = self.model_copy(update=placed).model_dump(
            exclude={"model", "all", "data", "halt", "noise", "slots", "threads"}, exclude_defaults=True
        )
        path, repository = folder.resolve(), ZOO.resolve().parents[1]
        words = ["gram", "eval", str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)
