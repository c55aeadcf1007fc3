"""`gram bench --against FOLDER`: the figures of this build against an earlier one's, whose environment runs its own command."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from tqdm import tqdm

from gram.models.markdown import table

ROUNDS = 3
"""The turns of each build."""

_RATES = {"kernels": "gbps", "step": "trajectory_steps_per_s", "engine": "trajectory_steps_per_s"}
"""The figure of each part of a report that is compared; it is a rate, so more is better."""


class AgainstError(ValueError):
    """The earlier build can't be measured; the message says why."""


class Ratio(BaseModel):
    """This build's rate as a multiple of the earlier one's: the median round, the least and the greatest."""

    what: str
    ratio: float
    least: float
    greatest: float


class Comparison(BaseModel):
    """All ratios to an earlier build."""

    folder: str
    rounds: int
    ratios: list[Ratio]
    missing: list[str] = Field(description="what only one of the two builds measures")

    def text(self) -> str:
        """In Markdown, for a terminal."""
        title = f"Against {self.folder}, {self.rounds} rounds in turns:"
        rows = [[each.what, f"{each.ratio:.2f}", f"{each.least:.2f} to {each.greatest:.2f}"] for each in self.ratios]
        parts = [title, table(["rate", "times the earlier build's", "in single rounds"], rows)]
        if self.missing:
            parts.append(f"Not compared, since only one of the two builds measures it: {'; '.join(self.missing)}.")
        return "\n\n".join(parts)


def python_of(folder: Path) -> Path:
    """The Python of another checkout, .venv/bin/python, or of an environment, bin/python. Raises AgainstError."""
    for python in (folder / ".venv/bin/python", folder / "bin/python"):
        if python.exists():
            return python.absolute()  # not resolved: a link is what makes it the environment's Python
    raise AgainstError(f"{folder} has no .venv/bin/python and no bin/python; install that build into an environment there")


def measure_in_turns(folder: Path, flags: Sequence[str], rounds: int = ROUNDS) -> tuple[dict[str, Any], Comparison]:
    """Let this build and the one in `folder` measure in turns. Return this one's last report, and the comparison.

    Raises AgainstError if a build has no `gram bench --json`, or it fails.
    """
    theirs = python_of(folder)
    reports: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number in tqdm(range(rounds), desc=f"against {folder}", unit="round"):
        sides = [(Path(sys.executable), Path.cwd()), (theirs, folder)]
        taken = {python: report_of(python, at, flags) for python, at in (sides if number % 2 == 0 else reversed(sides))}
        reports.append((taken[sides[0][0]], taken[theirs]))
    return reports[-1][0], compare(str(folder), reports)


def compare(folder: str, reports: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Comparison:
    """Compare the reports of the rounds, ours and theirs of each."""
    rounds = [(_rates(ours), _rates(theirs)) for ours, theirs in reports]
    names = dict.fromkeys(name for pair in rounds for side in pair for name in side)
    common = [name for name in names if all(name in side for pair in rounds for side in pair)]
    ratios = []
    for name in common:
        each = [ours[name] / theirs[name] for ours, theirs in rounds]
        ratios.append(Ratio(what=name, ratio=statistics.median(each), least=min(each), greatest=max(each)))
    missing = [name for name in names if name not in common]
    return Comparison(folder=folder, rounds=len(rounds), ratios=ratios, missing=missing)


def _rates(report: dict[str, Any]) -> dict[str, float]:
    """The rates of a report that are over 0, by what they are of."""
    found = {}
    for part, field in _RATES.items():
        for line in report.get(part, []):
            if rate := line.get(field):
                words = [str(line[key]) for key in ("name", "model", "dtype") if key in line]
                found[f"{part}: {', '.join(words)}, {line.get('slots')} slots"] = float(rate)
    return found


def report_of(python: Path, at: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run `gram bench` in a build's environment, and return its report. Raises AgainstError.

    PYTHONPATH is for this build alone: it would give both sides the same one.
    """
    own = python == Path(sys.executable)
    environment = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.json"
        command = [str(python), "-m", "gram", "bench", *flags, "--json", str(file)]
        done = subprocess.run(command, cwd=at, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode or not file.exists():
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise AgainstError(f"{python} -m gram bench --json failed ({last}); this needs a build that has that command")
        report: dict[str, Any] = json.loads(file.read_text())
        return report
