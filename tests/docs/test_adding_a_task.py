"""Follows docs/adding-a-task.md to the letter in a copy of the code: a task is written, trained, measured and served."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.servers import free_port
from tests.docs.support import ROOT, Block, Workplace, background, blocks, named

PAGE = ROOT / "docs" / "adding-a-task.md"
GIVEN = {(0, 0): 1, (3, 3): 2}


def apply(change: str, text: str) -> str:
    """Apply a diff. The old lines of each hunk must occur exactly once."""
    for hunk in re.split(r"^@@.*\n", change, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def is_right(square: list[list[int]]) -> bool:
    lines = [*square, *map(list, zip(*square, strict=True))]
    return all(sorted(line) == [1, 2, 3, 4] for line in lines) and all(square[r][c] == n for (r, c), n in GIVEN.items())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code that a reader has before the first step, without weights."""
    for package in ("models", "server", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("zoo", "baselines", "__pycache__"))
    shutil.copytree(ROOT / "src", tmp_path / "src", symlinks=True)
    for folder in ("docs", "tests/models/tasks", "models/zoo/latin-4"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks the server with curl")
def test_a_reader_who_follows_the_page_gets_a_right_answer_of_the_new_task(copy: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = Workplace(copy, code=copy, PYTEST_ADDOPTS="-n 0", GRAM_PORT=str(port), GRAM_SLOTS="8", GRAM_THREADS="1")
    printed: dict[str, str] = {}
    steps = blocks(PAGE)
    serve = next(i for i, block in enumerate(steps) if "gram serve" in block.code)

    def follow(block: Block) -> None:
        match block.language:
            case "python" | "toml":
                (copy / named(block)).write_text(block.code)
            case "diff":
                changed = copy / named(block)
                changed.write_text(apply(block.code, changed.read_text()))
            case "bash":
                printed[block.code.split()[1]] = place.run(block.code, url)
            case _:
                pytest.fail(f"{block}: nothing is done with a block of {block.language!r}")

    for block in steps[:serve]:
        follow(block)
    with background(steps[serve].code, place, url):
        for block in steps[serve + 1 :]:
            follow(block)

    assert '`"latin-4"`' in (copy / "docs" / "api.md").read_text()
    assert re.search(r"^\| +20 held-out \|", printed["eval"], re.MULTILINE)
    answer = json.loads(printed["-s"])
    assert answer["distinct_valid"] > 0
    for candidate in answer["candidates"]:
        assert candidate["valid"] == is_right(candidate["grid"])
    assert "valid" in printed["solve"]


@pytest.mark.parametrize("block", [block for block in blocks(PAGE) if block.language == "python"], ids=str)
def test_its_code_keeps_the_rules_of_the_house(block: Block) -> None:
    for rule in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *rule, "--no-cache", "--stdin-filename", named(block), "-"]
        told = subprocess.run(command, cwd=ROOT, input=block.code, text=True, capture_output=True)
        assert told.returncode == 0, told.stdout + told.stderr
