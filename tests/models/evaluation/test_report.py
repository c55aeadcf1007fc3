"""The files that `gram eval` writes, from made-up samples."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gram.models.config import EVALUATION_FILE, ZOO, read_config
from gram.models.evaluation.records import Curves, Evaluation, Figures, Generation
from gram.models.evaluation.report import (
    BY_DEPTH_FILE,
    BY_SAMPLES_FILE,
    REPORT_FILE,
    document,
    overview,
    save,
    saved,
    zoo_table,
)
from gram.models.evaluation.scores import Conditions, Sample, evaluate, evaluate_boards, evaluate_traits, evaluate_widths, judge
from gram.models.tasks import TASKS, Task

GENERATED = {"evaluation.json", "evaluation.md"}
FILES = GENERATED | {"curves.json", "by-samples.svg", "by-depth.svg"}


def solved(task: Task, *, symmetries: bool = True) -> Figures:
    """Ten puzzles, twenty samples each; the deeper, the more of them are right. Two test sets, two temperatures."""
    rng = np.random.default_rng(0)
    puzzles = task.held_out[:10]
    solutions = [task.solutions(puzzle) for puzzle in puzzles]
    evaluations, curves = [], Curves()
    for test_set in ("easy", "hard"):
        for temperature, depth in ((1.0, 1), (1.0, 4), (2.0, 16)):
            samples = [
                [Sample(rng.choice(found) if rng.random() < depth / 16 else puzzle, rng.random(), depth) for _ in range(20)]
                for puzzle, found in zip(puzzles, solutions, strict=True)
            ]
            judged = judge(task, Conditions(test_set, temperature, depth, 0, symmetries), puzzles, samples)
            if depth > 1:
                evaluations.append(evaluate(judged))
                curves.by_samples += evaluate_widths(judged)
                curves.by_trait += evaluate_traits(task, puzzles, judged)
            curves.by_depth += evaluate_widths(judged)
    return Figures(evaluations, curves)


def generated(task: Task, *, symmetries: bool = True) -> Figures:
    """Thirty boards at each of two temperatures: a tenth of them are wrong, then a half."""
    rng = np.random.default_rng(0)
    assert task.blank is not None
    boards = task.solutions(task.blank)
    generations = []
    for temperature, wrong in ((1.0, 3), (2.0, 15)):
        samples = [Sample(task.blank if i < wrong else rng.choice(boards), rng.random(), 1 + i % 4) for i in range(30)]
        generations.append(evaluate_boards(task, Conditions("empty input", temperature, 16, 0, symmetries), samples))
    return Figures(generations=generations)


def both(task: Task, *, symmetries: bool = True) -> Figures:
    return replace(solved(task, symmetries=symmetries), generations=generated(task, symmetries=symmetries).generations)


def cells(text: str) -> list[list[str]]:
    """Of all tables, row by row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def checkpoint(folder: Path, task: Task, figures: Figures) -> Path:
    """A folder with the figures and a config.json (of any weights: they are not read)."""
    folder.mkdir()
    config = json.loads((ZOO / "nqueens-8" / "config.json").read_bytes())
    able = {"task": task.name, "generates": bool(figures.generations)}
    (folder / "config.json").write_text(json.dumps(config | able))
    save(folder, "gram eval model", task, figures)
    return folder


@pytest.mark.parametrize("name", ["nqueens-8", "sudoku-4x4"])
@pytest.mark.parametrize(("measured", "files"), [(both, FILES), (generated, GENERATED)])
def test_the_same_figures_give_the_same_bytes(
    name: str, measured: Callable[[Task], Figures], files: set[str], tmp_path: Path
) -> None:
    for folder in (tmp_path / "a" / "model", tmp_path / "b" / "model"):
        folder.mkdir(parents=True)
        save(folder, "gram eval model", TASKS[name], measured(TASKS[name]))
        assert {path.name for path in folder.iterdir()} == files
    for file in files:
        assert (tmp_path / "a" / "model" / file).read_bytes() == (tmp_path / "b" / "model" / file).read_bytes()


@pytest.mark.parametrize(("name", "covers"), [("nqueens-8", True), ("sudoku-4x4", False)])
def test_plots_are_small_and_their_text_is_text(name: str, covers: bool, tmp_path: Path) -> None:
    save(tmp_path, "gram eval model", TASKS[name], solved(TASKS[name]))
    for file in (BY_SAMPLES_FILE, BY_DEPTH_FILE):
        assert (tmp_path / file).stat().st_size < 60_000
        plot = (tmp_path / file).read_text()
        words = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
        assert {"10 easy, temperature 1", "10 hard, temperature 1"} <= set(words)
        assert any("coverage" in word for word in words) == covers


def test_the_tables_have_the_figures(tmp_path: Path) -> None:
    task = TASKS["sudoku-4x4"]
    figures = solved(task)
    curves = figures.curves
    save(tmp_path, "gram eval model", task, figures)
    report = (tmp_path / REPORT_FILE).read_text()
    rows = cells(report)
    for e in figures.evaluations:
        shown = ["10 " + e.test_set, "20", "yes", f"{e.temperature:g}", f"{e.single:.2%}", f"{e.lprm:.2%}"]
        assert shown in [row[:6] for row in rows]
    for e in curves.by_samples:
        shares = (f"{getattr(e, column):.2%}" for column in ("single", "lprm", "majority", "any"))
        shown = ["10 " + e.test_set, str(e.samples), "yes", *shares]
        assert (shown in [row[:7] for row in rows]) == (e.temperature == 1)
    for test_set in ("easy", "hard"):
        for depth in (1, 4, 16):
            row = [e for e in curves.by_depth if (e.test_set, e.max_steps) == (test_set, depth)]
            for column in ("lprm", "any"):
                assert [str(depth), *(f"{getattr(e, column):.2%}" for e in row)] in rows
    for stratum in curves.by_trait:
        if stratum.temperature == 1:
            assert [stratum.band, str(stratum.puzzles), f"{stratum.single:.2%}"] in [row[:3] for row in rows]
    assert "empty input" not in report


def test_the_section_on_the_empty_input_has_the_figures(tmp_path: Path) -> None:
    task = TASKS["nqueens-8"]
    figures = both(task)
    save(tmp_path, "gram eval model", task, figures)
    report = (tmp_path / REPORT_FILE).read_text()
    assert "## Held-out puzzles" in report
    rows = cells(report.split("## From the empty input")[1])
    assert [row[2] for row in rows[2:]] == ["1", "2"], "the paper has no such figures of queens"
    for g, row in zip(figures.generations, rows[2:], strict=True):
        assert row == [
            "30",
            "yes",
            f"{g.temperature:g}",
            f"{g.valid:.2%}",
            str(g.distinct),
            "92",
            f"{g.total_variation:.2%}",
            f"{g.total_variation_limit:.2%}",
            f"{g.entropy:.4f}",
            f"{g.entropy_limit:.4f}",
            f"{g.auroc:.3f}",
            f"{g.mean_steps:.2f}",
        ]
    for name, field in Generation.model_fields.items():
        assert (f"- `{name}`: {field.description}" in report) == (name in rows[0]) or name in Evaluation.model_fields


def test_the_paper_s_generator_stands_below_ours(tmp_path: Path) -> None:
    task = TASKS["sudoku-9x9"]
    save(tmp_path, "gram eval model", task, generated(task))
    *_, paper = cells((tmp_path / REPORT_FILE).read_text())
    assert [cell for cell in paper if cell] == ["the paper", "99.05%", "100.00%"]


def test_the_zoo_shows_solvers_and_generators_apart(tmp_path: Path) -> None:
    queens, sudoku = TASKS["nqueens-8"], TASKS["sudoku-9x9"]
    solver = checkpoint(tmp_path / "sudoku-9x9", sudoku, solved(sudoku))
    generator = checkpoint(tmp_path / "sudoku-9x9-generator", sudoku, generated(sudoku))
    able = checkpoint(tmp_path / "nqueens-8", queens, both(queens))
    solvers, generators = zoo_table([able, solver, generator]).split("\n\nFrom the empty input")
    assert [(row[0].split("]")[0], row[-1]) for row in cells(solvers)[2:]] == [
        *[("[nqueens-8", "lprm 99.70%, coverage 90.30%")] * 2,  # a row for each test set
        *[("[sudoku-9x9", "lprm 97.00%")] * 2,
    ]
    g, h = generated(queens).generations[0], generated(sudoku).generations[0]
    distances = f"{g.total_variation:.2%}", f"{g.total_variation_limit:.2%}"
    entropies = [f"{(record.entropy or 0) / record.entropy_limit:.2%}" for record in (g, h)]
    queens_link, sudoku_link = (f"[{name}](../models/zoo/{name}/README.md)" for name in ("nqueens-8", "sudoku-9x9-generator"))
    paper = "valid 99.05%, distinct 100.00%"
    assert cells(generators)[2:] == [
        [queens_link, "30", "yes", "90.00%", f"{g.distinct} of 92", *distances, entropies[0], f"{g.mean_steps:.1f}", ""],
        [sudoku_link, "30", "yes", "90.00%", f"{h.distinct} of 27 valid", "", "", entropies[1], f"{h.mean_steps:.1f}", paper],
    ]
    assert zoo_table([generator]).startswith("From the empty input")


def test_the_overview_has_one_figure_of_each_checkpoint_as_it_is_served(tmp_path: Path) -> None:
    queens, sudoku = TASKS["nqueens-8"], TASKS["sudoku-9x9"]
    solver = checkpoint(tmp_path / "sudoku-9x9", sudoku, solved(sudoku))
    able = checkpoint(tmp_path / "nqueens-8", queens, both(queens, symmetries=False))
    save(able, "gram eval model", queens, both(queens))
    unmeasured = checkpoint(tmp_path / "unmeasured", queens, generated(queens))
    rows = cells(overview([able, solver, unmeasured]))[2:]
    assert [name for name, _, _ in rows] == [
        "[nqueens-8](models/zoo/nqueens-8/README.md)",
        "[sudoku-9x9](models/zoo/sudoku-9x9/README.md)",
    ]
    for task, (_, measured_on, valid) in zip((queens, sudoku), rows, strict=True):
        shares = {e.test_set: e.lprm for e in solved(task).evaluations if e.temperature == 1}
        assert valid == f"{min(shares.values()):.2%}"
        assert measured_on in {f"10 puzzles, {name}" for name, share in shares.items() if share == min(shares.values())}


def test_figures_that_were_saved_before_generation_was_measured_still_load(tmp_path: Path) -> None:
    task = TASKS["nqueens-8"]
    folder = checkpoint(tmp_path / "nqueens-8", task, both(task))
    table = zoo_table([folder])
    records = json.loads((folder / "evaluation.json").read_bytes())
    (folder / "evaluation.json").write_text(json.dumps([record for record in records if "test_set" in record]))
    assert zoo_table([folder]) == table.split("\n\nFrom")[0] != table


def test_what_was_measured_under_other_conditions_stays(tmp_path: Path) -> None:
    task = TASKS["nqueens-8"]
    folder = checkpoint(tmp_path / "nqueens-8", task, both(task, symmetries=False))
    before = saved(folder)
    save(folder, "gram eval model --more", task, both(task))
    figures = saved(folder)
    ways = itertools.product(("easy", "hard"), (True, False), (1, 2))
    assert [(e.test_set, e.symmetries, e.temperature) for e in figures.evaluations] == [*ways]
    assert [e for e in figures.evaluations if not e.symmetries] == before.evaluations
    assert [e for e in figures.curves.by_depth if not e.symmetries] == before.curves.by_depth
    assert [g for g in figures.generations if not g.symmetries] == before.generations
    report = (folder / REPORT_FILE).read_text()
    assert "gram eval model --more\ngram eval model\n" in report
    titles = {"10 easy, temperature 1", "10 easy, temperature 1, no symmetries"}
    assert titles <= set(re.findall(r"<text[^>]*>([^<]*)</text>", (folder / BY_DEPTH_FILE).read_text()))
    assert [row[2] for row in cells(zoo_table([folder])) if "nqueens" in row[0]] == ["yes", "no"] * 3


def test_what_is_measured_again_is_replaced(tmp_path: Path) -> None:
    task = TASKS["nqueens-8"]
    folder = checkpoint(tmp_path / "nqueens-8", task, both(task))
    before = saved(folder)
    save(folder, "gram eval model again", task, both(task))
    again = saved(folder)
    assert again.curves == before.curves
    commands = [e.command for e in again.evaluations] + [g.command for g in again.generations]
    assert set(commands) == {"gram eval model again"}
    assert len(again.evaluations) == len(before.evaluations)


@pytest.mark.parametrize("folder", [path.parent for path in sorted(ZOO.glob(f"*/{EVALUATION_FILE}"))], ids=lambda f: f.name)
def test_the_report_of_each_bundled_checkpoint_is_what_its_figures_make(folder: Path) -> None:
    task = TASKS[read_config(folder).task]
    assert (folder / REPORT_FILE).read_text() == document(folder.name, task, saved(folder))
