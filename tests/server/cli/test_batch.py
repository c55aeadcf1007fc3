"""Many puzzles: what is read, in which order it is answered, and how a run that was cut off goes on."""

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.servers import PATIENCE, RunningServer, interruptible, serving
from gram import GramError
from gram.models.tasks import TASKS
from gram.server.cli import batch
from gram.server.cli.batch import WRITERS, Answer, Csv, Output, solve_here, solve_there
from gram.server.cli.errors import CommandError
from gram.server.engine.engine import Engine
from gram.server.inputs.files import Line, PuzzleFile
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.options import Options
from tests.server.cli.support import gram
from tests.support import FIXED_SIZE, make_engine

TASK = TASKS["nqueens-8"]
OPTIONS = Options(num_trajectories=2, max_steps=2, seed=7)
PUZZLES = [
    "g7 a4",
    '{"queens": [[1, 6], [4, 0]]}',
    "",
    "g7 h8",
    json.dumps(TASK.examples[0]),
    '{"puzzle": "b8"}',
    json.dumps(TASK.examples[-1]),
    *(TASK.text(puzzle).replace("\n", "/") for puzzle in TASK.held_out[:5]),
]
WRONG = 4
"""The number of the wrong one's line."""


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return make_engine(checkpoint, slots=8)


@pytest.fixture
def puzzles(tmp_path: Path) -> Path:
    path = tmp_path / "puzzles.txt"
    path.write_text("\n".join(PUZZLES) + "\n")
    return path


def run(engine: Engine, puzzles: Path, output: Path) -> bytes:
    with Output(PuzzleFile(puzzles, [TASK]), TASK, output, None) as out:
        solve_here(out, engine, TASK, OPTIONS)
    return output.read_bytes()


def test_every_line_is_answered_in_its_order_with_its_seed(engine: Engine, puzzles: Path, tmp_path: Path) -> None:
    rows = [json.loads(row) for row in run(engine, puzzles, tmp_path / "all.ndjson").splitlines()]
    assert [row["line"] for row in rows] == [number for number, text in enumerate(PUZZLES, 1) if text]
    (wrong,) = [row for row in rows if "error" in row]
    assert wrong["line"] == WRONG
    assert "diagonal" in wrong["error"]
    for row in rows:
        if row is not wrong:
            assert row["seed"] == 7 + row["line"] - 1
            answer = SolveResponse.model_validate({**row, "queue_ms": 0, "compute_ms": 0})
            assert answer.trajectories == 2
            assert answer.puzzle.text == TASK.text(TASK.read(Line(0, PUZZLES[row["line"] - 1]).puzzle))


def test_an_early_stop_frees_the_slots_for_the_next_puzzle(engine: Engine, puzzles: Path, tmp_path: Path) -> None:
    with Output(PuzzleFile(puzzles, [TASK]), TASK, tmp_path / "all.ndjson", None) as output:
        solve_here(output, engine, TASK, Options(num_trajectories=100_000, stop="first_valid", seed=1))
    assert engine.idle
    rows = [json.loads(row) for row in (tmp_path / "all.ndjson").read_text().splitlines()]
    assert all(row["line"] == WRONG or row["distinct_valid"] == 1 for row in rows)


@pytest.mark.parametrize("ending", ["ndjson", "csv", "jsonl"])
def test_a_run_that_was_cut_off_anywhere_goes_on_to_the_same_bytes(
    engine: Engine, puzzles: Path, tmp_path: Path, ending: str
) -> None:
    whole = run(engine, puzzles, tmp_path / f"whole.{ending}")
    first_line = whole.index(b"\n") + 1
    for kept in (0, 1, first_line - 1, first_line, first_line + 1, len(whole) // 2, len(whole) - 1, len(whole)):
        output = tmp_path / f"cut.{ending}"
        output.write_bytes(whole[:kept])
        assert run(engine, puzzles, output) == whole, kept


def test_the_answers_of_a_data_set_are_compared(engine: Engine, tmp_path: Path) -> None:
    """Right is the first candidate's board, whatever its spelling; where the input has no answer, nothing is said."""
    full = TASK.text(TASK.solutions(TASK.read("g7 a4"))[0])
    wrong = TASK.text(TASK.solutions(TASK.read("b8"))[0])
    given = full.replace("\n", "/")
    data = tmp_path / "data.csv"
    data.write_text(f"puzzle,solution\n{given},{given}\n{given},{wrong.replace(chr(10), '/')}\n{given},\n{given},?\n")
    for ending in ("ndjson", "csv"):
        output = tmp_path / f"answers.{ending}"
        for _ in range(2):  # the second time from the file
            with Output(PuzzleFile(data, [TASK]), TASK, output, None) as out:
                solve_here(out, engine, TASK, Options(num_trajectories=1, seed=1))
            assert (out.right, out.compared, out.failed) == (1, 2, 0)
            assert out.complete == bool(_)
    rows = [json.loads(row) for row in (tmp_path / "answers.ndjson").read_text().splitlines()]
    assert [row.get("right") for row in rows] == [True, False, None, None]


def test_what_has_an_answer_is_not_solved_again(engine: Engine, puzzles: Path, tmp_path: Path) -> None:
    whole = run(engine, puzzles, tmp_path / "whole.ndjson")
    kept = b"".join(whole.splitlines(keepends=True)[:5])
    (tmp_path / "some.ndjson").write_bytes(kept + b'{"line":')
    with Output(PuzzleFile(puzzles, [TASK]), TASK, tmp_path / "some.ndjson", None) as output:
        assert [line.number for line in output.lines()] == [7, 8, 9, 10, 11, 12]
        assert output.failed == 1, "of the lines there"
    assert (tmp_path / "some.ndjson").read_bytes() == kept


@pytest.mark.parametrize(
    "content", ["", "hello\n", '{"line":"x"}\n', "[]\n", '{"a":1}\n', '{"line":2}\n', "line,answer\n", "\n", "\xff\n"]
)
@pytest.mark.parametrize("ending", ["ndjson", "csv"])
def test_a_file_of_something_else_is_left_alone(puzzles: Path, tmp_path: Path, content: str, ending: str) -> None:
    output = tmp_path / f"letters.{ending}"
    output.write_bytes(content.encode("latin-1") + b"half a li")
    with pytest.raises(CommandError, match="name another file with --output"):
        Output(PuzzleFile(puzzles, [TASK]), TASK, output, None)
    assert output.read_bytes() == content.encode("latin-1") + b"half a li"


def test_a_server_gives_the_same_bytes(server: RunningServer, puzzles: Path, engine: Engine, tmp_path: Path) -> None:
    for ending in ("csv", "ndjson"):
        here = run(engine, puzzles, tmp_path / f"here.{ending}")
        there = tmp_path / f"there.{ending}"
        with Output(PuzzleFile(puzzles, [TASK]), TASK, there, None) as output:
            asyncio.run(solve_there(output, server.url, None, TASK.name, OPTIONS))
        assert there.read_bytes() == here
        assert output.failed == 1


def test_a_server_that_goes_away_ends_the_run_which_goes_on_with_another(
    server: RunningServer, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_MAX_RETRIES", 1)
    lines = [Line(number, "g7") for number in range(1, 101)]
    whole, some = tmp_path / "whole.ndjson", tmp_path / "some.ndjson"

    def solve(url: str, path: Path) -> None:
        with Output(lines, TASK, path, None) as output:
            asyncio.run(solve_there(output, url, None, TASK.name, OPTIONS))

    solve(server.url, whole)
    with serving("--model", str(checkpoint), *FIXED_SIZE) as other:
        put = Output.put

        def put_and_kill(output: Output, number: int, answer: Answer) -> None:
            put(output, number, answer)
            other.process.kill()

        monkeypatch.setattr(Output, "put", put_and_kill)
        with pytest.raises(GramError, match="does not answer"):
            solve(other.url, some)
        monkeypatch.undo()
    assert whole.read_bytes().startswith(some.read_bytes())
    assert len(some.read_bytes()) < len(whole.read_bytes())
    solve(server.url, some)
    assert some.read_bytes() == whole.read_bytes()


def test_what_is_wrong_with_all_puzzles_is_no_line(server: RunningServer, tmp_path: Path) -> None:
    lines = [Line(1, "g7")]
    for task, options in (("chess", OPTIONS), (TASK.name, Options(num_trajectories=200_000))):
        with (
            pytest.raises(GramError, match="answered 4"),
            Output(lines, TASK, tmp_path / "none.ndjson", None) as output,
        ):
            asyncio.run(solve_there(output, server.url, None, task, options))
    assert (tmp_path / "none.ndjson").read_bytes() == b""


WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


@given(texts=st.lists(WORDS.map(str.strip).filter(bool), min_size=1), errors=st.data())
def test_what_is_written_is_read_again(texts: list[str], errors: st.DataObject) -> None:
    lines = [Line(number, text) for number, text in enumerate(texts, 1)]
    told = [errors.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)) for _ in lines]
    for writer in (WRITERS["ndjson"], WRITERS["csv"]):
        rows = [writer.row(line, error, None) for line, error in zip(lines, told, strict=True)]
        assert all(row.index("\n") == len(row) - 1 for row in rows)
        assert [writer.read(row) for row in rows] == [(line.number, True, None) for line in lines]
    table = csv.DictReader(io.StringIO(Csv.head + "".join(rows), newline=""))
    assert [(int(row["line"]), row["puzzle"]) for row in table] == list(enumerate(texts, 1))


def test_the_table_has_the_best_answer(engine: Engine, puzzles: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(engine, puzzles, tmp_path / "all.csv").decode(), newline="")))
    answers = [json.loads(row) for row in run(engine, puzzles, tmp_path / "all.ndjson").splitlines()]
    for row, answer in zip(rows, answers, strict=True):
        assert row["line"] == str(answer["line"])
        assert row["puzzle"] == PUZZLES[answer["line"] - 1]
        assert row["error"] == answer.get("error", "")
        if not row["error"]:
            best = answer["candidates"][0]
            assert row["answer"] == best["text"].replace("\n", " ")
            assert row["valid"] == json.dumps(best["valid"])
            assert [row[name] for name in ("score", "votes", "steps")] == [str(best[n]) for n in ("score", "votes", "steps")]
            assert [row[name] for name in ("seed", "trajectories")] == [str(answer[n]) for n in ("seed", "trajectories")]


SMALL = ("--task", TASK.name, "--num-trajectories", "2", "--max-steps", "2", "--seed", "7")


def test_the_command_answers_a_file_or_standard_input(puzzles: Path, tmp_path: Path, server: RunningServer) -> None:
    here = gram("solve", "--input", str(puzzles), "--output", str(tmp_path / "all.ndjson"), *SMALL)
    assert (here.returncode, here.stdout) == (1, "")
    assert "1 of 11 puzzles have no answer" in here.stderr
    there = gram("solve", "--input", "-", "--url", server.url, *SMALL, stdin=puzzles.read_text())
    assert there.returncode == 1
    assert there.stdout == (tmp_path / "all.ndjson").read_text()
    done = gram(
        "solve", "--input", str(puzzles), "--output", str(tmp_path / "all.ndjson"), "--model", "/nowhere", "--task", TASK.name
    )
    assert (done.returncode, done.stderr) == (1, here.stderr), "there is nothing left to do, and no model needed"
    well = gram("solve", "--input", "-", "--format", "csv", "--url", server.url, *SMALL, stdin="g7\r\n\r\nb8")
    assert (well.returncode, well.stderr) == (0, "")
    assert [row["line"] for row in csv.DictReader(io.StringIO(well.stdout))] == ["1", "3"]


def test_ctrl_c_ends_the_run_which_goes_on_where_it_was(server: RunningServer, tmp_path: Path) -> None:
    puzzles = tmp_path / "puzzles.txt"
    puzzles.write_text("g7\n" * 100_000)
    whole, some = tmp_path / "whole.csv", tmp_path / "some.csv"
    arguments = ("solve", "--input", str(puzzles), "--url", server.url, *SMALL, "--output")
    command = [sys.executable, "-m", "gram", *arguments, str(some)]
    with subprocess.Popen(command, preexec_fn=interruptible) as process:
        while not some.exists() or some.read_bytes().count(b"\n") < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    server.wait_until("gram_active_requests", 0)
    before = some.read_bytes()
    puzzles.write_text("g7\n" * (before.count(b"\n") + 20))
    for output in (some, whole):
        assert gram(*arguments, str(output)).returncode == 0
    assert some.read_bytes() == whole.read_bytes()
    assert whole.read_bytes().startswith(before)


def test_a_reader_that_has_enough_ends_the_run(puzzles: Path, server: RunningServer) -> None:
    command = [sys.executable, "-m", "gram", "solve", "--input", str(puzzles), "--url", server.url, *SMALL]
    end, start = os.pipe()
    os.close(end)
    done = subprocess.run(command, stdout=start, stderr=subprocess.PIPE, timeout=PATIENCE, text=True)
    os.close(start)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ((), "--input"),
        (("g7", "--input", "x"), "--input"),
        (("--input", "/nowhere"), "/nowhere"),
        (("g7", "--format", "csv"), "--json"),
        (("--input", "-", "--watch"), "--format"),
        (("--input", "-", "--output", "answers.xlsx"), ".ndjson, .jsonl, .csv"),
        (("--input", "-", "--output", "/nowhere/answers.csv"), "/nowhere/answers.csv"),
        (("--input", "-", "--url", "http://127.0.0.1:9"), "does not answer"),
    ],
)
def test_errors_say_what_to_do(arguments: tuple[str, ...], fix: str) -> None:
    result = gram("solve", *arguments, "--task", TASK.name, stdin="g7")
    assert result.returncode == 1
    assert fix in result.stderr
    assert "Traceback" not in result.stderr
