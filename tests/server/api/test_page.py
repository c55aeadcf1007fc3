"""The playground's files, and the puzzles that it draws."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.servers import RunningServer, serving
from gram.models.tasks import MOST_COUNTED, TASKS, Task
from gram.server.api.keys import Key, digest
from tests.support import FIXED_SIZE

FOLDER = Path(__file__).parents[3] / "server" / "page"
FILES = sorted(FOLDER.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def test_the_page_may_use_its_own_files_and_nothing_else(server: RunningServer) -> None:
    page = server.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert "'self'" not in server.get("/v1/tasks").headers["content-security-policy"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_served_as_what_it_is(server: RunningServer, path: Path) -> None:
    response = server.get(f"/page/{path.name}")
    assert response.content == path.read_bytes()
    assert response.headers["content-type"].startswith(TYPES[path.suffix])
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["nothing.js", "..%2fapi%2fapp.py", "../api/app.py", "%2e%2e/cli.py", "%2fetc%2fpasswd", "", "."]
)
def test_nothing_else_is(server: RunningServer, path: str) -> None:
    response = server.get(f"/page/{path}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_place(path: Path) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", path.read_text()))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, which nobody asks
    assert not re.search(r"""["'(]//\w|@import|data:""", path.read_text())


def test_the_page_has_no_script_or_style_within_and_what_it_loads_is_there() -> None:
    loaded: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            given = dict(attributes)
            assert tag != "style"
            assert tag != "script" or "src" in given
            assert not [name for name in given if name == "style" or name.startswith("on")]
            loaded.extend(value for name in ("src", "href") if (value := given.get(name)) and value.startswith("page/"))

    Reader().feed((FOLDER / "index.html").read_text())
    modules = [name for path in FOLDER.glob("*.js") for name in re.findall(r'from "\./(.*?)"', path.read_text())]
    names = {path.name for path in FILES}
    assert {name.removeprefix("page/") for name in loaded} | set(modules) == names - {"index.html"}


def test_the_page_counts_as_many_solutions_as_the_server() -> None:
    assert f"const MOST_COUNTED = {MOST_COUNTED};" in (FOLDER / "app.js").read_text()


def test_the_page_is_open_where_the_api_needs_a_key(checkpoint: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(Key(sha256=digest("secret")).toml("alice"))
    with serving("--model", str(checkpoint), *FIXED_SIZE, "--keys-file", str(keys)) as server:
        for path in ("/", "/page/app.js"):
            assert server.get(path).status_code == 200
        for path in ("/v1/tasks", "/v1/tasks/nqueens-8/puzzle"):
            assert server.get(path).status_code == 401
            assert server.get(path, headers={"authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_puzzle_to_try_is_one_of_the_held_out(server: RunningServer, task: Task) -> None:
    held_out = {puzzle.tobytes() for puzzles in task.test_sets.values() for puzzle in puzzles}
    drawn = [server.get(f"/v1/tasks/{task.name}/puzzle", params={"seed": seed}).json() for seed in (1, 2, 3, 1)]
    for answer in drawn:
        assert answer["task"] == task.name
        puzzle = task.parse(answer["puzzle"]["text"])
        assert puzzle.tobytes() in held_out
        assert answer["puzzle"]["grid"] == task.grid(puzzle)
    assert drawn[0] == drawn[3]
    assert len({answer["puzzle"]["text"] for answer in drawn}) > 1


def test_a_seed_is_chosen_and_gives_the_puzzle_again(server: RunningServer) -> None:
    address = "/v1/tasks/sudoku-9x9/puzzle"
    first, second = server.get(address).json(), server.get(address).json()
    assert first["seed"] != second["seed"]
    assert server.get(address, params={"seed": first["seed"]}).json() == first


@pytest.mark.parametrize(("path", "status", "place"), [("chess", 404, "name"), ("nqueens-8", 422, "query.seed")])
def test_what_is_no_task_or_no_seed_is_a_problem(server: RunningServer, path: str, status: int, place: str) -> None:
    response = server.get(f"/v1/tasks/{path}/puzzle", params={"seed": "-1"} if status == 422 else {})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["place"] == place


def test_puzzles_are_drawn_without_what_only_training_needs() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['numba', 'scipy', 'torch'])\n"
        "import numpy as np; from gram.models.tasks import TASKS\n"
        "for task in TASKS.values(): print(task.text(task.held_out_puzzle(np.random.default_rng(1))))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parents[1], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
