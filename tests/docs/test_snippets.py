"""The code in the documents works: every block is run or parsed, or named below with the reason why it is not."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks.servers import RunningServer, serving
from gram.models.training.recipe import load_training_config
from gram.server.api.keys import Key, digest, new_key, read_keys
from gram.server.api.reference import openapi
from tests.docs import words
from tests.docs.support import ADDRESS, ROOT, Block, Workplace, blocks, inline_code
from tests.support import FIXED_SIZE

PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "models" / "README.md",
    *sorted(ROOT.glob("models/zoo/*/*.md")),
    *sorted(ROOT.glob("deploy/*.md")),
]
FOLLOWED = {
    "adding-a-task.md": "test_adding_a_task.py does what the page says, in its order",
    "own-data.md": "test_own_data.py does what the page says, in its order",
    "scaling-out.md": "tests/server/ray/test_cluster.py does what the page says, in its order",
    "importing.md": "test_importing.py does what the page says, in its order",
}
NOT_RUN = {
    r"^python3 -m venv": "CI begins with it: test_readme.py holds the two to the same words",
    r"^\.venv/bin/pip install": "it installs; the environment of the tests was made by it",
    r"gram serve(?!.*--help)": "it runs until it is stopped; the servers that are asked here were started by it",
    r"gram train models/": "it takes hours; tests/models/training trains small models, and the recipes are read here",
    r"gram eval": "it takes hours; tests/server/test_evaluation.py measures a few puzzles",
    r"gram bench": "it takes minutes; tests/server/test_bench.py runs it",
    r"^docker compose": "there is no Docker in CI; tests/deploy reads its files",
    r"^\.venv/bin/serve run": "it needs Ray, which CI has not; tests/server/ray/test_cluster.py brings up such a cluster",
    r"^kubectl": "there is no cluster in CI; tests/deploy reads its files",
}
"""Commands in blocks that are not run, and why. The flags, files and variables that they name are looked up all the same."""

BLOCKS = [block for page in PAGES for block in blocks(page)]
_CALL = re.compile(r"(?:(GET|POST|DELETE) )?(/(?:v[12]|health|metrics|docs|openapi)[^\s?]*)")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / ".curlrc").write_text("fail-with-body\n")  # a refused request is a command that fails
    return Workplace(tmp_path, code=ROOT, CURL_HOME=str(tmp_path))


@pytest.fixture(scope="module")
def locked(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, str]]:
    """A server with a keys file and a models root, and an admin's key."""
    folder = tmp_path_factory.mktemp("locked")
    key = new_key()
    (folder / "keys.toml").write_text(Key(sha256=digest(key), admin=True).toml("admin") + "\n")
    shutil.copytree(checkpoint, folder / "checkpoints" / "my-checkpoint")
    flags = ("--keys-file", str(folder / "keys.toml"), "--models-root", str(folder / "checkpoints"))
    with serving(*flags, "--model", str(checkpoint), *FIXED_SIZE) as server:
        yield server, key


def left_out(command: str) -> bool:
    """Whether any part of a command is in NOT_RUN. Then none of it is run."""
    return any(re.search(pattern, part) for part in command.split(" && ") for pattern in NOT_RUN)


def alike(shown: object, told: object) -> bool:
    """Whether an answer has the same fields and types as the one that is shown; their values may differ."""
    match shown, told:
        case dict(), dict():
            return shown.keys() == told.keys() and all(alike(shown[key], told[key]) for key in shown)
        case list(), list():
            return all(alike(a, b) for a, b in zip(shown[:1], told[:1], strict=False))
    return isinstance(told, (int, float)) if isinstance(shown, (int, float)) else type(shown) is type(told)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.page.name not in FOLLOWED], ids=str)
def test_a_block_is_true(block: Block, place: Workplace, server: RunningServer, request: pytest.FixtureRequest) -> None:
    match block.language:
        case "bash":
            for command in block.commands:
                for simple in words.simple_commands(command):
                    words.check(simple)
            run = [command for command in block.commands if not left_out(command)]
            code = block.code if run == block.commands else "\n".join(run)
            if "curl" in code and shutil.which("curl") is None:
                pytest.skip("there is no curl")
            url = server.url
            if re.search(r"\bKEY\b", code):
                keyed, key = request.getfixturevalue("locked")
                url, code = keyed.url, re.sub(r"\bKEY\b", key, code)
            printed = place.run(code, url)
            following = next((b for b in BLOCKS if b.page == block.page and b.line > block.line), None)
            if following and following.language == "json" and following.before.endswith("```"):
                assert alike(json.loads(following.code), json.loads(printed))
        case "python":
            if "import tritonclient" in block.code:
                pytest.importorskip("tritonclient.http")
            # A client without an address asks the server in the documents.
            code = re.sub(r"Client\(\)", f'Client("{server.url}")', block.code)
            (place.folder / "snippet.py").write_text(ADDRESS.sub(server.url.removeprefix("http://"), code))
            place.run("python snippet.py")
        case "toml":
            (place.folder / "block.toml").write_text(block.code)
            if "task" in tomllib.loads(block.code):
                load_training_config(place.folder / "block.toml")
            else:
                read_keys(place.folder / "block.toml")
        case "json":
            json.loads(block.code)
        case "text":
            pass  # only for the eye
        case _:
            pytest.fail(f"no rule for a block of {block.language!r}: run it, parse it, or say here why not")


@cache
def methods(path: str) -> set[str]:
    """Return the methods of a path in the OpenAPI document; for the beginning of paths, the methods of all of them."""
    calls = {"/docs": ["get"], "/openapi.json": ["get"], **openapi()["paths"]}
    part = path.rstrip("*").rstrip("/") + "/"
    found = (calls[known] for known in calls if re.fullmatch(re.sub(r"{\w+}", "[^/]+", known), path) or known.startswith(part))
    return {method.upper() for call in found for method in call}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_named_in_the_text_exists(page: Path) -> None:
    for span in inline_code(page):
        first = span.split()[0]
        try:
            if Path(first).name in words.PROGRAMS:
                for simple in words.simple_commands(span):
                    words.check(simple)
            elif first.startswith("--"):
                words.check_flag(first.partition("=")[0])
            elif first.startswith("GRAM_"):
                words.check_variable(first.partition("=")[0])
            elif call := _CALL.fullmatch(span):
                assert methods(call[2]), "the server has no such path"
                assert call[1] is None or call[1] in methods(call[2]), "the path does not have this method"
            elif page.name not in FOLLOWED:
                words.check_path(span)
        except AssertionError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: `{span}`: {error}")
