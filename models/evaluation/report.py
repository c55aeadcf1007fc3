"""The files that `gram eval` writes beside the weights: figures as JSON, as Markdown tables, and plots of the solver's."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from gram.models.config import EVALUATION_FILE, read_config
from gram.models.evaluation.plots import plot_by_depth, plot_by_samples
from gram.models.evaluation.records import Curves, Evaluation, Figures, Generation, Stratum
from gram.models.markdown import table
from gram.models.tasks import Task, task_of
from gram.models.temperature import schedule, temperature_text

CURVES_FILE = "curves.json"
REPORT_FILE = "evaluation.md"
BY_SAMPLES_FILE = "by-samples.svg"
BY_DEPTH_FILE = "by-depth.svg"

_SHARES = ("single", "lprm", "majority", "any")
_DIVERSITY = ("distinct_valid", "coverage", "coverage_limit")
_FIGURES = (*_SHARES, "conflicts", *_DIVERSITY, "auroc", "mean_steps")
_BOARD_FIGURES = tuple(name for name, field in Generation.model_fields.items() if field.description and name != "command")
"""The figures without the conditions, which need no explanation."""
_NUMBERS = {"conflicts": "{:g}", "distinct_valid": "{:.2f}", "entropy": "{:.4f}", "entropy_limit": "{:.4f}"}
_NUMBERS |= {"auroc": "{:.3f}", "mean_steps": "{:.2f}"}
"""The formats of figures that are neither counts nor shares."""
_Record = Evaluation | Generation
_R = TypeVar("_R", Evaluation, Stratum, Generation)


def saved(folder: Path) -> Figures:
    """Read the figures that a folder has."""
    figures, curves = folder / EVALUATION_FILE, folder / CURVES_FILE
    records = TypeAdapter(list[_Record]).validate_json(figures.read_bytes()) if figures.exists() else []
    return Figures(
        [record for record in records if isinstance(record, Evaluation)],
        Curves.model_validate_json(curves.read_bytes()) if curves.exists() else Curves(),
        [record for record in records if isinstance(record, Generation)],
    )


def save(folder: Path, command: str, task: Task, figures: Figures) -> None:
    """Add figures, which `command` measured, to those that the folder has, and write all its files.

    They replace earlier figures with the same conditions. Without solved puzzles there are no curves.
    """
    figures = _merge(saved(folder), figures, command)
    records = [record.model_dump() for record in figures.records]
    (folder / EVALUATION_FILE).write_text(json.dumps(records, indent=2) + "\n")
    if figures.evaluations:
        (folder / CURVES_FILE).write_text(figures.curves.model_dump_json(indent=2, exclude_defaults=True) + "\n")
        plot_by_samples(figures.curves, folder / BY_SAMPLES_FILE)
    if figures.curves.by_depth:
        plot_by_depth(figures.curves, folder / BY_DEPTH_FILE)
    (folder / REPORT_FILE).write_text(document(folder.resolve().name, task, figures))


def document(name: str, task: Task, figures: Figures) -> str:
    """The content of a checkpoint's evaluation.md: the commands that measured it, its plots, and all tables."""
    commands = "\n".join(dict.fromkeys(record.command for record in figures.records))
    parts = [
        f"# {name}, measured",
        "This file and the figures and plots beside it are written by the commands below; don't edit them.",
        f"```bash\n{commands}\n```",
    ]
    if figures.evaluations:
        parts += [f"![by samples]({BY_SAMPLES_FILE})"]
    if figures.curves.by_depth:
        parts += [f"![by depth]({BY_DEPTH_FILE})"]
    parts += [tables(task, figures), "## What the figures are"]
    if figures.evaluations:
        parts += ["Means over the puzzles:", _descriptions(Evaluation, _FIGURES)]
    if figures.generations:
        parts += ["Boards from the empty input:", _descriptions(Generation, _BOARD_FIGURES)]
    return "\n\n".join(parts) + "\n"


def _merge(old: Figures, new: Figures, command: str) -> Figures:
    """Merge records, the new ones replacing those with equal conditions; sorted by symmetries first, then by temperature."""
    for record in new.records:
        record.command = command

    def united(old: list[_R], new: list[_R]) -> list[_R]:
        unique: dict[str, _R] = {_conditions(record): record for records in (old, new) for record in records}
        sets = [*dict.fromkeys(map(_test_set, unique.values()))]

        def order(record: _R) -> tuple[int, bool, list[float]]:
            return sets.index(_test_set(record)), not record.symmetries, schedule(record.temperature)

        return sorted(unique.values(), key=order)

    return Figures(
        united(old.evaluations, new.evaluations),
        Curves(
            by_samples=united(old.curves.by_samples, new.curves.by_samples),
            by_depth=united(old.curves.by_depth, new.curves.by_depth),
            by_trait=united(old.curves.by_trait, new.curves.by_trait),
        ),
        united(old.generations, new.generations),
    )


def _conditions(record: _Record) -> str:
    """The conditions of a record: what was measured, and how it was sampled."""
    return record.model_dump_json(include={name for name, field in type(record).model_fields.items() if not field.description})


def _test_set(record: _Record) -> str:
    return record.test_set if isinstance(record, Evaluation) else ""


def tables(task: Task, figures: Figures) -> str:
    """All tables of a checkpoint, in Markdown."""
    parts = []
    if figures.evaluations:
        parts += _puzzle_tables(task, figures.evaluations, figures.curves)
    if figures.generations:
        parts += ["## From the empty input", _generation(figures.generations, task.paper)]
    return "\n\n".join(parts)


def _puzzle_tables(task: Task, evaluations: list[Evaluation], curves: Curves) -> list[str]:
    """The curves as tables. Those by samples and by traits are at the first temperature; curves.json has the others."""
    first = evaluations[0].temperature
    parts = ["## Held-out puzzles", _summary(evaluations, task.paper)]
    parts += [
        f"## By samples, temperature {temperature_text(first)}",
        _by_samples([e for e in curves.by_samples if e.temperature == first]),
    ]
    if curves.by_depth:
        parts += ["## By depth and samples, without halting"]
    for _, group in itertools.groupby(curves.by_depth, lambda evaluation: evaluation.title):
        evaluations = list(group)
        parts += _by_depth(evaluations, ["lprm", "coverage" if evaluations[0].covers_several else "any"])
    strata = [stratum for stratum in curves.by_trait if stratum.temperature == first]
    for (test_set, trait, sampling), bands in itertools.groupby(strata, lambda s: (s.test_set, s.trait, s.sampling)):
        parts += [f"## By {trait}: {test_set}, {sampling}", _by_band(trait, list(bands))]
    return parts


def _by_band(trait: str, bands: list[Stratum]) -> str:
    """The figures of the puzzles of each band of a trait, with the answers' diversity if there are several to find."""
    several = any(band.coverage_limit != 1 for band in bands)
    columns = (*_SHARES, *(_DIVERSITY if several else ()))
    return table([trait, "puzzles", *columns], [[band.band, str(band.puzzles), *_cells(band, columns)] for band in bands])


def overview(folders: Iterable[Path]) -> str:
    """One figure of each checkpoint, as it is served (with symmetries, at its first temperature): the table of README.md.

    It is the share of puzzles that the LPRM's choice solves, in the test set that is the hardest for the checkpoint.
    """
    rows = []
    for folder in folders:
        if served := _served(saved(folder).evaluations):
            hardest = min(served, key=lambda record: record.lprm)
            rows.append(
                [_card(folder, "models/zoo"), f"{hardest.puzzles:,} puzzles, {hardest.test_set}", f"{hardest.lprm:.2%}"]
            )
    return table(["checkpoint", "measured on", "valid"], rows)


def zoo_table(folders: Iterable[Path]) -> str:
    """The saved figures of several checkpoints beside the paper's, each at its first temperature: the tables of docs/models.md.

    There is one table of what they solve and one of what they generate, each only if any does.
    """
    puzzles, boards = [], []
    for folder in folders:
        records = saved(folder).records
        task = task_of(read_config(folder))
        name = _card(folder, "../models/zoo")
        for record in records:
            if record.temperature != records[0].temperature:
                continue
            if isinstance(record, Generation):
                boards.append([name, *_board_cells(record), _paper_cell(task, Generation)])
            else:
                puzzles.append([name, *_puzzle_cells(task, record), _paper_cell(task, Evaluation)])
    parts = []
    if puzzles:
        shares = ["single", "LPRM's choice", "majority", "any", "coverage", "of its limit"]
        parts.append(table(["checkpoint", "held-out puzzles", "symmetries", *shares, "steps", "the paper"], puzzles))
    if boards:
        shown = ["boards", "symmetries", "valid", "distinct", "total variation", "of uniform draws", "entropy of its limit"]
        parts += [
            "From the empty input, a single trajectory for each board:",
            table(["checkpoint", *shown, "steps", "the paper"], boards),
        ]
    return "\n\n".join(parts)


def band_tables(folders: Iterable[Path]) -> str:
    """Figures by traits of the puzzles, of the test sets in which puzzles have several solutions: tables of docs/models.md.

    They are of checkpoints as they are served, like those of `overview`.
    """
    rows: dict[str, list[list[str]]] = {}
    for folder in folders:
        served = _served(saved(folder).curves.by_trait)
        several = {stratum.test_set for stratum in served if stratum.coverage_limit != 1}
        for stratum in served:
            if stratum.test_set in several:
                cells = _cells(stratum, ("single", "lprm", "any", *_DIVERSITY))
                row = [_card(folder, "../models/zoo"), stratum.band, str(stratum.puzzles), *cells]
                rows.setdefault(stratum.trait, []).append(row)
    columns = ["puzzles", "single", "LPRM's choice", "any", "distinct valid", "coverage", "its limit"]
    return "\n\n".join(table(["checkpoint", trait, *columns], of_trait) for trait, of_trait in rows.items())


def _served(records: list[_R]) -> list[_R]:
    """The records of a checkpoint as it is served: with symmetries, at their first temperature."""
    records = [record for record in records if record.symmetries]
    return [record for record in records if record.temperature == records[0].temperature]


def _card(folder: Path, zoo: str) -> str:
    """A link to a checkpoint's card, from a document that finds the zoo at this path."""
    return f"[{folder.name}]({zoo}/{folder.name}/README.md)"


def _puzzle_cells(task: Task, e: Evaluation) -> list[str]:
    coverage = ["", ""]
    if e.coverage is not None and e.coverage_limit is not None and e.covers_several:
        coverage = [f"{e.coverage:.2%}", f"{e.coverage / e.coverage_limit:.1%}"]
    chosen = f"{e.lprm:.2%}" + (f", {e.conflicts} in conflict" if "conflicts" in task.paper else "")
    of = f"{e.puzzles:,} {e.test_set}", _sees(e)
    return [*of, f"{e.single:.2%}", chosen, f"{e.majority:.2%}", f"{e.any:.2%}", *coverage, f"{e.mean_steps:.1f}"]


def _board_cells(g: Generation) -> list[str]:
    total = f"{g.reachable:,}" if g.reachable else f"{g.valid * g.samples:,.0f} valid"
    distance = ["", ""] if g.total_variation is None else _cells(g, ("total_variation", "total_variation_limit"))
    entropy = "" if g.entropy is None else f"{g.entropy / g.entropy_limit:.2%}"
    of = f"{g.samples:,}", _sees(g)
    return [*of, f"{g.valid:.2%}", f"{g.distinct:,} of {total}", *distance, entropy, f"{g.mean_steps:.1f}"]


def _paper_cell(task: Task, record: type[_Record]) -> str:
    return ", ".join(f"{name} {_cell(name, figure)}" for name, figure in task.paper.items() if name in record.model_fields)


def _summary(evaluations: list[Evaluation], paper: dict[str, float]) -> str:
    rows = [
        [f"{e.puzzles} {e.test_set}", str(e.samples), _sees(e), temperature_text(e.temperature), *_cells(e, _FIGURES)]
        for e in evaluations
    ]
    rows += _paper_row(4, _FIGURES, paper)
    return table(["puzzles", "samples", "symmetries", "temperature", *_FIGURES], rows)


def _generation(generations: list[Generation], paper: dict[str, float]) -> str:
    rows = [[f"{g.samples:,}", _sees(g), temperature_text(g.temperature), *_cells(g, _BOARD_FIGURES)] for g in generations]
    rows += _paper_row(3, _BOARD_FIGURES, paper)
    return table(["samples", "symmetries", "temperature", *_BOARD_FIGURES], rows)


def _sees(record: _Record) -> str:
    return "yes" if record.symmetries else "no"


def _paper_row(conditions: int, columns: Iterable[str], paper: dict[str, float]) -> list[list[str]]:
    """The paper's row, if it has any of these figures, with empty cells for our conditions."""
    cells = [_cell(column, paper[column]) if column in paper else "" for column in columns]
    return [["the paper", *[""] * (conditions - 1), *cells]] if any(cells) else []


def _by_samples(evaluations: list[Evaluation]) -> str:
    columns = "single", "lprm", "majority", "any", "coverage", "coverage_limit"
    rows = [[f"{e.puzzles} {e.test_set}", str(e.samples), _sees(e), *_cells(e, columns)] for e in evaluations]
    return table(["puzzles", "samples", "symmetries", *columns], rows)


def _by_depth(evaluations: list[Evaluation], columns: list[str]) -> list[str]:
    """The figures of a test set without halting, a table for each figure: a row for each depth, a column for each K."""
    parts = []
    depths = [list(row) for _, row in itertools.groupby(evaluations, lambda evaluation: evaluation.max_steps)]
    for column in columns:
        header = ["depth", *(f"K = {e.samples}" for e in depths[0])]
        rows = [[str(row[0].max_steps), *(cell for e in row for cell in _cells(e, [column]))] for row in depths]
        parts += [f"`{column}`, {evaluations[0].title}:", table(header, rows)]
    return parts


def _descriptions(record: type[_Record], columns: Iterable[str]) -> str:
    return "\n".join(f"- `{name}`: {record.model_fields[name].description}" for name in columns)


def _cells(record: _Record, columns: Iterable[str]) -> list[str]:
    return [_cell(column, getattr(record, column)) for column in columns]


def _cell(column: str, figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,}" if isinstance(figure, int) else _NUMBERS.get(column, "{:.2%}").format(figure)
