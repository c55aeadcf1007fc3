"""The code blocks of the documents, and a folder in which their commands are run."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import PATIENCE, RunningServer, wait_for

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):8000")
"""The address of the server in the documents."""
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_SHIMS = {"gram": "-m gram", "python": "", "pytest": "-m pytest"}


@dataclass(frozen=True)
class Block:
    """A fenced code block of a document, and the paragraph before it."""

    page: Path
    line: int
    language: str
    code: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, each on one line."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """Return the fenced code blocks of a document."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()].rstrip().rpartition("\n\n")[2]
        found.append(Block(page, text.count("\n", 0, fence.start()) + 1, fence[1], fence[2], before))
    return found


def inline_code(page: Path) -> list[str]:
    """Return the inline code of a document."""
    return _INLINE.findall(_FENCE.sub("", page.read_text()))


def named(block: Block) -> str:
    """Return the file that the sentence before a block names at its end."""
    match = re.search(r"`([\w./-]+)`:$", block.before)
    assert match, f"{block}: the paragraph before it names no file"
    return match[1]


class Workplace:
    """A folder with a `.venv/bin`, in which commands of the documents run."""

    def __init__(self, folder: Path, code: Path, **environment: str) -> None:
        """`code`: the folder of the repository, or of a copy, whose code runs."""
        self.folder = folder
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, arguments in _SHIMS.items():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            (programs / name).chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": os.pathsep.join([str(code / "src"), str(code)]),
            **environment,
        }

    def run(self, command: str, server: str = "http://localhost:8000") -> str:
        """Run a command, which must succeed, and return what it prints. `server` replaces the address in the documents."""
        told = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", ADDRESS.sub(server.removeprefix("http://"), command)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert told.returncode == 0, f"{command}\n{told.stdout}\n{told.stderr}"
        return told.stdout


@contextmanager
def background(command: str, place: Workplace, url: str) -> Iterator[None]:
    """Start a server with the page's command, and wait until it is ready."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=place.folder, env=place.environment)
    try:
        wait_for(RunningServer(url, process).ready, "the server is ready")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
