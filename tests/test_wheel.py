"""The wheel: one top-level package, which works in an empty environment, beside a `models` package of somebody else's."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from benchmarks.servers import PATIENCE

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "kernels", "models", "server")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, run without the environment's ways to find the sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that no earlier build is part of it."""
    sources, made = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "baselines")
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, sources)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, sources, cwd=made)
    (built,) = made.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel, and the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # .pth files there are not followed
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    return python


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of a research project with packages of its own, which fail where they are taken for ours."""
    for name in ("models", "server", "kernels", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} is of somebody else')\n")
    return tmp_path


def test_it_has_one_top_level_package_and_what_serving_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"gram", "gram_server"}
    for needed in ("gram/py.typed", "gram/server/page/index.html", "gram/models/tasks/data/sudoku-9x9.txt"):
        assert needed in names
    for checkpoint in ROOT.glob("models/zoo/*/config.json"):
        assert f"gram/models/zoo/{checkpoint.parent.name}/model.safetensors" in names
    assert not [name for name in names if "/baselines/" in name or name.endswith((".pyc", "by-depth.svg", "train.log"))]


def test_the_command_solves_a_puzzle_in_a_folder_with_other_models(python: Path, elsewhere: Path) -> None:
    options = ("--num-trajectories", "4", "--seed", "1", "--device", "cpu")
    assert "valid" in run(python.with_name("gram"), "solve", "g7 a4", *options, cwd=elsewhere)
    assert "valid" in run(python, "-m", "gram", "solve", "g7 a4", *options, cwd=elsewhere)


def test_what_is_public_is_imported_from_gram_in_a_folder_with_other_models(python: Path, elsewhere: Path) -> None:
    code = (
        "import sys, gram\n"
        "assert gram.__file__.startswith(sys.prefix), gram.__file__\n"
        "assert set(gram.__all__) <= set(dir(gram))\n"
        "from gram import AsyncClient, Client, TASKS\n"
        "assert 'torch' not in sys.modules\n"
        "from gram import *\n"
        "assert GRAM.__module__ == 'gram.models.network' and 'nqueens-8' in TASKS\n"
    )
    run(python, "-c", code, cwd=elsewhere)
