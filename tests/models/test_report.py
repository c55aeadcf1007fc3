"""The files that `gram eval` writes, from made-up samples."""

import re
from pathlib import Path

import numpy as np
import pytest

from models.evaluation import Conditions, Curves, Evaluation, Sample, evaluate, evaluate_traits, evaluate_widths, judge
from models.report import BY_DEPTH_FILE, BY_SAMPLES_FILE, REPORT_FILE, save
from models.tasks import TASKS, Task

FILES = {"evaluation.json", "curves.json", "evaluation.md", "by-samples.svg", "by-depth.svg"}


def figures(task: Task) -> tuple[list[Evaluation], Curves]:
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
            judged = judge(task, Conditions(test_set, temperature, depth, 0), puzzles, samples)
            if depth > 1:
                evaluations.append(evaluate(judged))
                curves.by_samples += evaluate_widths(judged)
                curves.by_trait += evaluate_traits(task, puzzles, judged)
            curves.by_depth += evaluate_widths(judged)
    return evaluations, curves


@pytest.mark.parametrize("name", ["nqueens-8", "sudoku-4x4"])
def test_the_same_figures_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "model", tmp_path / "b" / "model"):
        folder.mkdir(parents=True)
        save(folder, "gram eval model", TASKS[name], *figures(TASKS[name]))
        assert {path.name for path in folder.iterdir()} == FILES
    for file in FILES:
        assert (tmp_path / "a" / "model" / file).read_bytes() == (tmp_path / "b" / "model" / file).read_bytes()


@pytest.mark.parametrize(("name", "covers"), [("nqueens-8", True), ("sudoku-4x4", False)])
def test_plots_are_small_and_their_text_is_text(name: str, covers: bool, tmp_path: Path) -> None:
    save(tmp_path, "gram eval model", TASKS[name], *figures(TASKS[name]))
    for file in (BY_SAMPLES_FILE, BY_DEPTH_FILE):
        assert (tmp_path / file).stat().st_size < 60_000
        plot = (tmp_path / file).read_text()
        words = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
        assert {"10 easy, temperature 1", "10 hard, temperature 1"} <= set(words)
        assert any("coverage" in word for word in words) == covers


def test_the_tables_have_the_figures(tmp_path: Path) -> None:
    task = TASKS["sudoku-4x4"]
    evaluations, curves = figures(task)
    save(tmp_path, "gram eval model", task, evaluations, curves)
    report = (tmp_path / REPORT_FILE).read_text()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line.startswith("|")]
    for e in evaluations:
        assert ["10 " + e.test_set, "20", f"{e.temperature:g}", f"{e.single:.2%}", f"{e.lprm:.2%}"] in [
            row[:5] for row in cells
        ]
    for e in curves.by_samples:
        shown = ["10 " + e.test_set, str(e.samples), *(f"{getattr(e, c):.2%}" for c in ("single", "lprm", "majority", "any"))]
        assert (shown in [row[:6] for row in cells]) == (e.temperature == 1)
    for test_set in ("easy", "hard"):
        for depth in (1, 4, 16):
            row = [e for e in curves.by_depth if (e.test_set, e.max_steps) == (test_set, depth)]
            for column in ("lprm", "any"):
                assert [str(depth), *(f"{getattr(e, column):.2%}" for e in row)] in cells
    for stratum in curves.by_trait:
        if stratum.temperature == 1:
            assert [stratum.band, str(stratum.puzzles), f"{stratum.single:.2%}"] in [row[:3] for row in cells]
