"""What `gram eval` writes beside the weights: the figures as JSON, the same as Markdown tables, and two plots."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from models.config import EVALUATION_FILE, ZOO, read_config
from models.evaluation import Curves, Evaluation
from models.plots import plot_by_depth, plot_by_samples
from models.tasks import TASKS, Task

CURVES_FILE = "curves.json"
REPORT_FILE = "evaluation.md"
BY_SAMPLES_FILE = "by-samples.svg"
BY_DEPTH_FILE = "by-depth.svg"

_FIGURES = ("single", "lprm", "majority", "any", "conflicts", "coverage", "coverage_limit", "auroc", "mean_steps")
_NUMBERS = {"conflicts": "{:g}", "auroc": "{:.3f}", "mean_steps": "{:.2f}"}
"""How to write those figures that are no shares."""


def save(folder: Path, command: str, task: Task, evaluations: list[Evaluation], curves: Curves) -> None:
    """Write all files; `command` is what measured this."""
    (folder / EVALUATION_FILE).write_text(json.dumps([e.model_dump() for e in evaluations], indent=2) + "\n")
    (folder / CURVES_FILE).write_text(curves.model_dump_json(indent=2) + "\n")
    plot_by_samples(task, curves, folder / BY_SAMPLES_FILE)
    plot_by_depth(task, curves, folder / BY_DEPTH_FILE)
    parts = [
        f"# {folder.resolve().name}, measured",
        f"This file, `{EVALUATION_FILE}`, `{CURVES_FILE}` and the plots are written by the command below; don't edit them.",
        f"```bash\n{command}\n```",
        *(f"![{title}]({file})" for title, file in (("by samples", BY_SAMPLES_FILE), ("by depth", BY_DEPTH_FILE))),
        tables(task, evaluations, curves),
        "## What the figures are",
        "Means over the puzzles:",
        "\n".join(f"- `{name}`: {Evaluation.model_fields[name].description}" for name in _FIGURES),
    ]
    (folder / REPORT_FILE).write_text("\n\n".join(parts) + "\n")


def tables(task: Task, evaluations: list[Evaluation], curves: Curves) -> str:
    """All tables, in Markdown. Those of samples and traits are of the first temperature; curves.json has the others."""
    first = evaluations[0].temperature
    parts = ["## Held-out puzzles", _summary(evaluations, task.paper)]
    parts += [f"## By samples, temperature {first:g}", _by_samples([e for e in curves.by_samples if e.temperature == first])]
    parts += ["## By depth and samples, without halting"]
    for _, group in itertools.groupby(curves.by_depth, lambda evaluation: evaluation.test_set):
        parts += _by_depth(list(group), ["lprm", "any" if task.one_solution else "coverage"])
    strata = [stratum for stratum in curves.by_trait if stratum.temperature == first]
    for (test_set, trait), bands in itertools.groupby(strata, lambda stratum: (stratum.test_set, stratum.trait)):
        columns = "single", "lprm", "majority", "any"
        rows = [[band.band, str(band.puzzles), *_cells(band, columns)] for band in bands]
        parts += [f"## By {trait}: {test_set}, temperature {first:g}", table([trait, "puzzles", *columns], rows)]
    return "\n\n".join(parts)


def zoo_table(folders: Iterable[Path]) -> str:
    """The saved figures of several checkpoints beside the paper's, each at its first temperature: the README's table."""
    header = [
        "checkpoint",
        "held-out puzzles",
        "single",
        "LPRM's choice",
        "any",
        "coverage",
        "of its limit",
        "steps",
        "the paper",
    ]
    rows = []
    for folder in folders:
        evaluations = TypeAdapter(list[Evaluation]).validate_json((folder / EVALUATION_FILE).read_bytes())
        task = TASKS[read_config(folder).task]
        for e in (e for e in evaluations if e.temperature == evaluations[0].temperature):
            # Of a puzzle with one solution the coverage is whether any sample is valid.
            coverage = ["", ""] if task.one_solution else [f"{e.coverage:.2%}", f"{e.coverage / e.coverage_limit:.1%}"]
            papers = ", ".join(f"{name} {_cell(name, figure)}" for name, figure in task.paper.items())
            chosen = f"{e.lprm:.2%}" + (f", {e.conflicts} conflicts" if "conflicts" in task.paper else "")
            name = f"[{folder.name}]({folder.relative_to(ZOO.parents[1])}/README.md)"
            figures = [f"{e.single:.2%}", chosen, f"{e.any:.2%}", *coverage, f"{e.mean_steps:.1f}"]
            rows.append([name, f"{e.puzzles:,} {e.test_set}", *figures, papers])
    return table(header, rows)


def _summary(evaluations: list[Evaluation], paper: dict[str, float]) -> str:
    rows = [[f"{e.puzzles} {e.test_set}", str(e.samples), f"{e.temperature:g}", *_cells(e, _FIGURES)] for e in evaluations]
    if paper:
        rows.append(["the paper", "", "", *(_cell(column, paper[column]) if column in paper else "" for column in _FIGURES)])
    return table(["puzzles", "samples", "temperature", *_FIGURES], rows)


def _by_samples(evaluations: list[Evaluation]) -> str:
    columns = "single", "lprm", "majority", "any", "coverage", "coverage_limit"
    rows = [[f"{e.puzzles} {e.test_set}", str(e.samples), *_cells(e, columns)] for e in evaluations]
    return table(["puzzles", "samples", *columns], rows)


def _by_depth(evaluations: list[Evaluation], columns: list[str]) -> list[str]:
    """The grid of one test set, a table for each of the figures: a row for each depth, a column for each K."""
    parts = []
    depths = [list(row) for _, row in itertools.groupby(evaluations, lambda evaluation: evaluation.max_steps)]
    for column in columns:
        header = ["depth", *(f"K = {e.samples}" for e in depths[0])]
        rows = [[str(row[0].max_steps), *(cell for e in row for cell in _cells(e, [column]))] for row in depths]
        of = f"{evaluations[0].puzzles} {evaluations[0].test_set}, temperature {evaluations[0].temperature:g}"
        parts += [f"`{column}`, {of}:", table(header, rows)]
    return parts


def _cells(evaluation: Evaluation, columns: Iterable[str]) -> list[str]:
    return [_cell(column, getattr(evaluation, column)) for column in columns]


def _cell(column: str, figure: float | None) -> str:
    return "-" if figure is None else _NUMBERS.get(column, "{:.2%}").format(figure)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, whose columns are aligned in a terminal too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * (width - 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
