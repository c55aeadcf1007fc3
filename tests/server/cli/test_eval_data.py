"""`gram eval --data`: what it prints is what `gram solve` answers to the same puzzles."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gram.models.tasks import TASKS
from gram.server.evaluation.measure import Measured, Shares
from gram.server.evaluation.summary import summary
from gram.server.sampling.options import Options
from tests.server.cli.support import gram
from tests.support import unchecked_checkpoint, write_data_set

TASK = TASKS["nqueens-8"]
PUZZLES = TASK.held_out[:60:5]
ANSWERS = np.stack([TASK.solutions(puzzle)[0] for puzzle in PUZZLES])
WAY = ("--symmetries", "[true]", "--temperatures", "[2.0]", "--max-steps", "6", "--seed", "3")


def table(printed: str, place: int = 0) -> list[dict[str, str]]:
    """The rows of a Markdown table that was printed."""
    found = re.findall(r"(?:^\|.*\|\n)+", printed, re.MULTILINE)[place]
    header, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in found.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "mine", PUZZLES, ANSWERS, TASK.vocab_size)


def test_the_figures_are_those_of_the_answers_that_solve_gives(checkpoint: Path, folder: Path) -> None:
    before = (checkpoint / "evaluation.json").read_bytes()
    printed = gram("eval", str(checkpoint), "--data", str(folder), *WAY, "--samples", "5")
    assert printed.returncode == 0, printed.stderr
    assert "12 puzzles, 12 with a known answer; at most 6 steps, seed 3" in printed.stdout
    way = ("--temperature", "2.0", "--max-steps", "6", "--seed", "3", "--num-trajectories", "5", "--select", "lprm")
    rows = table(printed.stdout)
    assert [row["halting"] for row in rows] == ["auto", "never"]
    for row in rows:
        solved = gram("solve", "--input", str(folder), "--task", "nqueens-8", *way, "--halt", row["halting"])
        answers = [json.loads(line) for line in solved.stdout.splitlines()]
        expected = [TASK.text(answer) for answer in ANSWERS]
        votes = [
            sum(c["votes"] for c in answer["candidates"] if c["text"] == text) / 5
            for answer, text in zip(answers, expected, strict=True)
        ]
        assert row["exact, single"] == f"{np.mean(votes):.2%}"
        assert row["exact, LPRM's choice"] == f"{np.mean([answer['right'] for answer in answers]):.2%}"
        assert row["exact, any"] == f"{np.mean(np.array(votes) > 0):.2%}"
        assert row["valid, LPRM's choice"] == f"{np.mean([answer['candidates'][0]['valid'] for answer in answers]):.2%}"
        assert row["steps"] == f"{np.mean([answer['steps_run'] for answer in answers]) / 5:.2f}"
    assert (rows[1]["steps"], rows[1]["saved"]) == ("6.00", "0.0%")
    assert float(rows[0]["steps"]) < 6
    assert (checkpoint / "evaluation.json").read_bytes() == before


def test_a_run_is_repeated_to_the_last_figure_whatever_the_slots(checkpoint: Path, folder: Path) -> None:
    runs = []
    for slots in ("3", "16"):
        printed = gram("eval", str(checkpoint), "--data", str(folder), *WAY, "--samples", "2", "--slots", slots)
        runs.append([{name: cell for name, cell in row.items() if name != "puzzles/s"} for row in table(printed.stdout)])
    assert runs[0] == runs[1]


def test_a_table_of_puzzles_is_measured_by_rating_and_says_what_is_wrong_with_it(checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("puzzle,answer,rating\ng7 a4,,1\nhello,,2\nb8,a1,3\ng7 a4,,\n")
    printed = gram("eval", str(checkpoint), "--data", str(data), "--samples", "2", "--halt", "0.9", "--symmetries", "[true]")
    assert printed.returncode == 0, printed.stderr
    assert "3 puzzles, 1 with a known answer" in printed.stdout
    assert [(row["halting"], row["exact, any"]) for row in table(printed.stdout)] == [("0.9", "0.00%")]
    assert "## By rating: halting 0.9, with symmetries" in printed.stdout
    assert [(row["rating"], row["puzzles"]) for row in table(printed.stdout, 1)] == [("1", "1"), ("3", "1")]
    assert "1 left out, the first: line 3: " in printed.stderr
    assert "1 with an answer that does not solve the puzzle, the first: line 4" in printed.stderr


def test_puzzles_are_spread_over_the_file_and_keep_their_seeds(checkpoint: Path, folder: Path) -> None:
    way = ("--samples", "1", "--halt", "never", *WAY)
    some = gram("eval", str(checkpoint), "--data", str(folder), *way, "--puzzles", "4", "--limit", "3")
    assert "3 puzzles, 3 with a known answer" in some.stdout
    rows = np.array([0, 3, 6])
    write_data_set(folder / "others", PUZZLES[rows], ANSWERS[rows], TASK.vocab_size)
    others = gram("eval", str(checkpoint), "--data", str(folder / "others"), *way)
    assert "3 puzzles" in others.stdout


def test_of_a_task_without_code_only_known_answers_count(tmp_path: Path) -> None:
    model = unchecked_checkpoint(tmp_path / "model")
    puzzles = np.random.default_rng(0).integers(9, size=(5, 9))
    answers = np.where(np.arange(9) < 8, -1, puzzles)
    folder = write_data_set(tmp_path / "mine", puzzles, answers, 9)
    printed = gram("eval", str(model), "--data", str(folder), "--samples", "3", "--max-steps", "2")
    assert printed.returncode == 0, printed.stderr
    (auto, never) = table(printed.stdout)
    assert not [name for name in auto if name.startswith("valid")]
    assert auto["symmetries"] == never["symmetries"] == "no"
    (folder / "all__labels.npy").unlink()
    refused = gram("eval", str(model), "--data", str(folder))
    assert re.search(r"all__labels\.npy is missing, and nothing else checks the answers of nine", refused.stderr)
    (tmp_path / "puzzles.txt").write_text("012345678\n")
    refused = gram("eval", str(model), "--data", str(tmp_path / "puzzles.txt"))
    assert "has no puzzle of nine that can be measured" in refused.stderr
    assert "line 1: it has no answer" in refused.stderr
    assert "nine has no held-out puzzles; name a data set with --data" in gram("eval", str(model)).stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "all__labels.npy").write_bytes(b"no"), r"all__labels\.npy is no array, or was cut off"),
        (lambda folder: np.save(folder / "all__labels.npy", ANSWERS[:3] + 1), r"all__labels\.npy has 3 rows of 64 cells, but"),
        (lambda folder: np.save(folder / "all__inputs.npy", PUZZLES + 2), r"row 1, cell \d+: 4 is no symbol; write 1 to 3"),
        (
            lambda folder: (folder / "dataset.json").write_text('{"vocab_size": 11, "seq_len": 64}'),
            "its puzzles have 10 symbols, those of nqueens-8 have 3; name a data set of nqueens-8",
        ),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused_in_one_sentence(
    spoil: Callable[[Path], object], message: str, checkpoint: Path, folder: Path
) -> None:
    spoil(folder)
    refused = gram("eval", str(checkpoint), "--data", str(folder), "--samples", "1")
    assert refused.returncode == 1
    assert re.search(f"^gram: .*{message}", refused.stderr, re.MULTILINE)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("flag", [("--halt", "never"), ("--noise", "none")])
def test_how_to_halt_is_asked_for_with_data_alone(flag: tuple[str, str], checkpoint: Path) -> None:
    assert "go with --data" in gram("eval", str(checkpoint), *flag).stderr


def test_ratings_are_put_together_in_bands_of_about_equally_many_puzzles() -> None:
    by_rating = {float(rating): Shares(10, 5.0, 8.0, 10.0) for rating in range(60)}
    measured = Measured(Options(), exact=Shares(600, 300, 480, 600), by_rating=by_rating, puzzles=600, steps=1, seconds=1)
    bands = table(summary([measured]) + "\n", 1)
    assert [band["rating"] for band in bands] == ["0-9", "10-19", "20-29", "30-39", "40-49", "50-59"]
    assert {tuple(band.values())[1:] for band in bands} == {("100", "50.00%", "80.00%", "100.00%")}
