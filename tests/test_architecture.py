"""Who may import whom, and what CI runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("kernels",),
    ("models",),
    ("server.causes", "server.catalog"),
    ("server.settings",),
    ("server.logs",),
    ("server.engine",),
    ("server.sampling",),
    ("server.supervision", "server.local", "server.inputs"),
    ("server.jobs",),
    ("server.metrics",),
    ("server.api",),
    ("server.client", "server.ray"),
    ("server.bench_against",),
    ("server.bench", "server.evaluation"),
    ("server.cli",),
)
"""The rooms from the ground up: each may import those on lower floors, and itself."""

FLOORS = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> dict[str, Path]:
    """All modules by their names below `gram`: "server.api.routes"."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in ("kernels", "models", "server")
        for path in (ROOT / folder).rglob("*.py")
    }


MODULES = modules()


def room_of(module: str) -> str | None:
    """The room that a module is in."""
    return next((room for room in FLOORS if f"{module}.".startswith(f"{room}.")), None)


def imports(path: Path) -> set[str]:
    """The modules that a file imports, in functions and for type checking too; of the project those below `gram`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            inner = base.removeprefix("gram.")
            names |= {f"{base}.{a.name}" if f"{inner}.{a.name}" in MODULES else base for a in node.names}
    return {name.removeprefix("gram.") for name in names}


def test_every_module_is_in_a_room() -> None:
    assert [module for module in MODULES if module != "server" and room_of(module) is None] == []


def test_rooms_import_downwards_only() -> None:
    upward = [
        f"{module} -> {imported}"
        for module, path in MODULES.items()
        for imported in imports(path)
        if (home := room_of(module)) and (other := room_of(imported)) and home != other and FLOORS[other] >= FLOORS[home]
    ]
    assert upward == []


def test_the_import_graph_has_no_circle() -> None:
    arrows = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    while leaves := {module for module, targets in arrows.items() if not targets & arrows.keys() - {module}}:
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}
    assert sorted(arrows) == []


def test_ray_is_imported_in_its_room_alone() -> None:
    assert {module for module, path in MODULES.items() if {name.split(".")[0] for name in imports(path)} & {"ray"}} <= {
        module for module in MODULES if room_of(module) == "server.ray"
    }


def test_our_own_modules_are_imported_as_gram() -> None:
    """The folders are on the path of a checkout too; a module that is imported by both names exists twice."""
    files = [*MODULES.values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in {"kernels", "models", "server"}, path
            elif isinstance(node, ast.Import):
                assert not {a.name.split(".")[0] for a in node.names} & {"kernels", "models", "server"}, path


@pytest.mark.parametrize("module", ["gram.server.api.app", "gram.server.client.client", "gram.server.client.async_client"])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("heavy", ["torch", "fastapi", "httpx"])
def test_help_is_told_before_anything_heavy_is_imported(heavy: str) -> None:
    code = f"import sys, gram.server.cli.main; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_is_long() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > 310} == {}


def test_nothing_unpickles_but_the_importer_which_takes_tensors_alone() -> None:
    picklers = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for module, path in MODULES.items():
        assert not {name.split(".")[0] for name in imports(path)} & picklers
        calls = re.findall(r"torch\.load\((.*)\)", path.read_text())
        assert "torch.load" not in path.read_text() or module == "models.importing.source"
        assert all("weights_only=True" in call for call in calls)
