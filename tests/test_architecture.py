"""Who may import whom, and what CI runs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(package: str) -> set[str]:
    """The top-level packages that a package's files import."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(("package", "forbidden"), [("kernels", {"models", "server"}), ("models", {"server"})])
def test_packages_import_downwards_only(package: str, forbidden: set[str]) -> None:
    assert "torch" in imported(package), "the search for imports finds something"
    assert not imported(package) & forbidden


def test_the_api_process_does_not_import_torch() -> None:
    code = "import sys, server.api.app, server.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_nothing_unpickles() -> None:
    for package in ("kernels", "models", "server"):
        assert not imported(package) & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        assert not any("torch.load" in path.read_text() for path in (ROOT / package).rglob("*.py"))
