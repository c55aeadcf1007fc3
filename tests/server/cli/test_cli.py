"""The command line, as a person uses it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from benchmarks.servers import PATIENCE, RunningServer
from gram.models.config import read_config
from gram.models.evaluation.records import Evaluation, Generation
from gram.models.evaluation.report import saved
from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models
from tests.server.cli.support import gram


def unmeasured(checkpoint: Path, copy: Path, **changes: object) -> Path:
    """A copy of its weights and configuration, the latter changed."""
    copy.mkdir()
    shutil.copy(checkpoint / "model.safetensors", copy)
    config = json.loads((checkpoint / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps(config | changes))
    return copy


@pytest.mark.parametrize("command", ["serve", "solve", "generate", "train", "eval", "trace", "import"])
def test_help_describes_every_option(command: str) -> None:
    assert command in gram("--help").stdout
    result = gram(command, "--help")
    assert result.returncode == 0
    assert "usage: gram" in result.stdout


def test_solve_draws_the_board_and_is_repeatable() -> None:
    first = gram("solve", "g7 a4", "--seed", "1")
    command = [sys.executable, "-m", "gram", "solve", "-", "--seed", "1"]
    again = subprocess.run(command, capture_output=True, text=True, input="g7 a4", timeout=PATIENCE)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert ". . . . . . Q ." in first.stdout
    assert "distinct valid answers from 20 trajectories" in first.stdout
    assert first.stdout.split(" steps in ")[0] == again.stdout.split(" steps in ")[0]


@pytest.mark.parametrize("folder", bundled_models(), ids=lambda folder: folder.name)
def test_solve_draws_the_answers_of_every_bundled_model_beside_the_puzzle(folder: Path) -> None:
    task = TASKS[read_config(folder).task]
    puzzle = str(task.examples[0]) if isinstance(task.examples[0], str) else json.dumps(task.examples[0])
    result = gram("solve", puzzle, "--task", task.name, "--seed", "1", "--num-trajectories", "3", "--top", "1")
    assert result.returncode == 0, result.stderr
    title, *lines = result.stdout.splitlines()
    assert title.startswith("puzzle   ")
    drawn = [line.replace(" ", "") for line in lines]
    for row in task.text(task.parse(task.examples[0])).split("\n"):
        assert any(line.startswith(row.replace(" ", "")) for line in drawn)


def test_solve_gives_the_same_answer_here_and_on_a_server(server: RunningServer) -> None:
    options = ("solve", '{"queens": [[1, 6]]}', "--seed", "3", "--num-trajectories", "6", "--json")
    here, there = (json.loads(gram(*options, *where).stdout) for where in ((), ("--url", server.url)))
    assert here["candidates"] == there["candidates"]


def test_generate_gives_the_same_boards_here_and_on_a_server(server: RunningServer) -> None:
    options = ("generate", "--seed", "3", "--num-samples", "6", "--guidance.prune.keep", "0.5", "--json")
    here, there = (json.loads(gram(*options, *where).stdout) for where in ((), ("--url", server.url)))
    assert here["candidates"] == there["candidates"]
    assert here["pruned"] == there["pruned"] > 0


def test_of_several_models_the_first_that_can_do_what_is_asked_does_it(checkpoint: Path, tmp_path: Path) -> None:
    solver = unmeasured(checkpoint, tmp_path / "solver", generates=False)
    result = gram("generate", "--num-samples", "1", "--model", str(solver), "--model", str(checkpoint), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "nqueens-8"


def test_a_puzzle_without_a_solution_is_an_error_that_names_a_clue(checkpoint: Path) -> None:
    result = gram("solve", "12../..3./..4./....", "--model", str(checkpoint.with_name("sudoku-4x4")))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("gram: this puzzle has no solution; without the 1 in row 1, column 1")


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("solve", "g7 h8"), "diagonal"),
        (("solve", "g7", "--task", "chess"), "nqueens-8"),
        (("generate", "--task", "coloring-8"), "nqueens-8"),
        (("solve", "g7", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("solve", "g7", "--num-trajectories", "0"), "greater than or equal to 1"),
        (("solve", "g7", "--model", "/nowhere"), "config.json"),
        (("train", "/nowhere.toml"), "/nowhere.toml"),
        (("solve", "g7", "--slots", "1000000000000"), "fewer --slots"),
        (("serve", "--port", "x"), "port"),
        (("eval", "/nowhere"), "config.json"),
        (("eval",), "--all"),
        (("eval", "--all", "/nowhere"), "--all"),
    ],
)
def test_errors_say_what_to_do_without_a_traceback(arguments: tuple[str, ...], fix: str) -> None:
    result = gram(*arguments)
    assert result.returncode != 0
    assert fix in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_option_on_a_server_is_explained(server: RunningServer) -> None:
    result = gram("solve", "g7 h8", "--url", server.url)
    assert result.returncode == 1
    assert "diagonal" in result.stderr


def test_eval_prints_the_figures_beside_the_papers(checkpoint: Path) -> None:
    before = (checkpoint / "evaluation.json").read_bytes()
    result = gram("eval", str(checkpoint), "--limit", "4", "--samples", "5", "--boards", "6")
    assert result.returncode == 0, result.stderr
    assert "4 held-out" in result.stdout
    assert "## From the empty input" in result.stdout
    assert "paper" in result.stdout
    assert (checkpoint / "evaluation.json").read_bytes() == before


def test_eval_writes_figures_curves_tables_and_plots(checkpoint: Path, tmp_path: Path) -> None:
    folder = unmeasured(checkpoint, tmp_path / "copy")
    drawn = ("--samples", "2", "--boards", "5", "--max-steps", "1")
    small = (*drawn, "--grid-puzzles", "3", "--grid-depth", "5", "--puzzles", "40")
    result = gram("eval", str(folder), *small)
    assert result.returncode == 0, result.stderr
    figures, report = saved(folder), (folder / "evaluation.md").read_text()
    curves = figures.curves
    assert [(g.samples, g.symmetries) for g in figures.generations] == [(5, True), (5, False)]
    assert [(e.puzzles, e.samples, e.symmetries) for e in figures.evaluations] == [(40, 2, True), (40, 2, False)]
    assert [(e.samples, e.symmetries) for e in curves.by_samples] == [(1, True), (2, True), (1, False), (2, False)]
    for whole, drawn_twice in zip(figures.evaluations, curves.by_samples[1::2], strict=True):
        assert drawn_twice == whole.model_copy(update={"command": ""})
    assert [(e.max_steps, e.samples, e.puzzles) for e in curves.by_depth] == [(d, k, 3) for d in (1, 2, 4) for k in (1, 2)]
    tables = result.stdout[result.stdout.index("## Held-out puzzles") :].strip()
    assert tables in report
    assert str(tmp_path) not in report, "a path of one machine"
    (command,) = re.findall("^gram eval .*", report, re.MULTILINE)
    assert command.startswith("gram eval copy --device ")
    assert shlex.join(small) in command
    for plot in re.findall(r"!\[.*\]\((.*)\)", report):
        assert (folder / plot).read_text().endswith("</svg>\n")


def test_eval_measures_the_boards_that_generate_makes(checkpoint: Path, tmp_path: Path) -> None:
    folder = unmeasured(checkpoint, tmp_path / "copy")
    few = ("--puzzles", "1", "--samples", "1", "--grid-puzzles", "0")
    measured = gram(
        "eval", str(folder), *few, "--boards", "60", "--temperatures", "[1.0, 2.0]", "--max-steps", "9", "--seed", "5"
    )
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout[measured.stdout.index("## From the empty input") :].strip() in (folder / "evaluation.md").read_text()
    records = TypeAdapter(list[Evaluation | Generation]).validate_json((folder / "evaluation.json").read_bytes())
    generations = [record for record in records if isinstance(record, Generation)]
    assert [(g.temperature, g.symmetries, g.max_steps, g.seed, g.samples, g.reachable) for g in generations] == [
        (temperature, symmetries, 9, 5, 60, 92) for symmetries in (True, False) for temperature in (1.0, 2.0)
    ]
    options = ("--num-samples", "60", "--temperature", "2", "--max-steps", "9", "--seed", "5", "--json")
    made = json.loads(gram("generate", "--model", str(folder), *options).stdout)
    votes = [candidate["votes"] for candidate in made["candidates"] if candidate["valid"]]
    assert 1 < len(votes) < sum(votes) < 60, "all that the figures tell apart has happened"
    hotter = generations[1]
    assert (hotter.valid, hotter.distinct, hotter.mean_steps) == (sum(votes) / 60, len(votes), made["steps_run"] / 60)
    assert hotter.total_variation == pytest.approx(sum(vote / sum(votes) - 1 / 92 for vote in votes))


def test_eval_says_what_a_checkpoint_cannot_generate(checkpoint: Path, tmp_path: Path) -> None:
    result = gram("eval", str(unmeasured(checkpoint, tmp_path / "copy", task="coloring-8")))
    assert result.returncode == 1
    assert "coloring-8 has no empty input" in result.stderr
    assert "Traceback" not in result.stderr


def test_eval_without_matplotlib_says_what_to_install(checkpoint: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from gram.server.cli.main import main; main()"
    command = [sys.executable, "-c", code, "eval", str(checkpoint)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "pip install -e '.[train]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_train_writes_a_checkpoint_that_eval_reads(tmp_path: Path) -> None:
    recipe = tmp_path / "train.toml"
    recipe.write_text(
        """
        task = "nqueens-8"
        batch_size = 4
        [model]
        dim = 16
        num_layers = 1
        mixer_dim = 16
        mlp_dim = 16
        guidance_dim = 16
        supervision_steps = 2
        [[stages]]
        name = "posterior"
        updates = 3
        lr = 1e-3
        [[stages]]
        name = "prior"
        updates = 3
        lr = 1e-3
        prior_share = 0.5
        [heads]
        puzzles = 64
        steps = 2
        """
    )
    trained = gram("train", str(recipe), "--out", str(tmp_path / "tiny"))
    assert trained.returncode == 0, trained.stderr
    assert "prior_accuracy" in trained.stderr
    measured = gram("eval", str(tmp_path / "tiny"), "--limit", "2", "--samples", "2", "--temperatures", "[1.0]")
    assert measured.returncode == 0, measured.stderr
