"""Looks up the words of the documents' commands: subcommands, flags, modules, files and environment variables must exist."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path

import yaml
from pydantic_settings import CliApp

from gram.models.training.recipe import load_training_config
from gram.server.cli.main import Gram
from tests.docs.support import ROOT

PROGRAMS = {
    "gram",
    "python",
    "python3",
    "torchrun",
    "pip",
    "pip-audit",
    "printf",
    "pytest",
    "curl",
    "docker",
    "kubectl",
    "ray",
    "serve",
}
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
_FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"."}
_HELPS = """
import contextlib, io, json, runpy, sys
modules, told = sys.argv[1:], {}
for module in modules:
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    told[module] = out.getvalue()
json.dump(told, sys.stdout)
"""


def simple_commands(line: str) -> list[list[str]]:
    """Split a shell line into its commands, each a list of words, without comments and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) <= set("<>"):
            next(words, None)
        elif set(word) <= set("&|;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def program(words: list[str]) -> str:
    """Return the program that a command runs: without its folder, and without the variables that are set before it."""
    return next((Path(word).name for word in words if "=" not in word.partition("/")[0]), "")


def check(words: list[str]) -> None:
    """Assert that everything a command names exists. `...` and words in capitals are placeholders."""
    words = [word for word in words if word != "..."]
    while words and "=" in words[0].partition("/")[0]:
        check_variable(words.pop(0).partition("=")[0])
    arguments = words[1:]
    match program(words):
        case "gram":
            _check_flags(arguments, _gram_flags(arguments[0]) if arguments else set())
        case "python" | "python3" if arguments[:1] == ["-m"]:
            if len(arguments) > 1:
                _check_module(arguments[1], arguments[2:])
        case "torchrun":
            check(arguments[next(i for i, word in enumerate(arguments) if Path(word).name == "gram") :])
        case "pip":
            _check_install(arguments)
        case "docker":
            _check_compose(arguments)
        case "kubectl":
            if "-k" in arguments:
                assert (ROOT / arguments[arguments.index("-k") + 1] / "kustomization.yaml").exists()
        case "pytest" | "curl" | "printf" | "pip-audit" | "ray" | "serve":
            pass
        case unknown:
            raise AssertionError(f"unknown program {unknown!r}; known: {sorted(PROGRAMS)}")
    for word in arguments:
        check_path(word)


def check_path(word: str) -> None:
    """Assert that a path in the repository exists, and that a recipe can be loaded."""
    if (
        re.fullmatch(r"[\w.-]+/[\w./-]*", word)
        and word.partition("/")[0] in _FOLDERS
        and not word.startswith((".venv", ".git/"))
    ):
        assert (ROOT / word).exists(), f"there is no {word}"
        if Path(word).name == "train.toml":
            load_training_config(ROOT / word)


def check_variable(name: str) -> None:
    """Assert that the code reads an environment variable of ours, or that it is a setting."""
    setting = f"--{name.removeprefix('GRAM_').lower().replace('_', '-')}"
    assert not name.startswith("GRAM_") or name in _variables_read() or setting in all_flags(), f"nothing reads {name}"


def check_flag(flag: str) -> None:
    """Assert that some command has this flag."""
    assert flag in all_flags() | _foreign_flags(), f"no command knows {flag}"


@cache
def all_flags() -> frozenset[str]:
    """Return the flags of all subcommands of gram, and of the other commands in the repository."""
    flags = set().union(*(_gram_flags(subcommand) for subcommand in _subcommands()))
    return frozenset(flags.union(*(_FLAG.findall(told) for told in _module_helps().values())))


@cache
def _variables_read() -> set[str]:
    """Return our environment variables that the code names."""
    paths = [path for package in ("kernels", "server") for path in (ROOT / package).rglob("*.py")]
    return {name for path in paths for name in re.findall(r"GRAM_\w+", path.read_text())}


def _check_flags(words: list[str], known: set[str]) -> None:
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"unknown flag {word}; known: {sorted(known)}"


def _check_module(module: str, arguments: list[str]) -> None:
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no module {module}"
    assert spec.origin
    if Path(spec.origin).is_relative_to(ROOT):
        assert module in _module_helps(), f"{module} is no command"
        _check_flags(arguments, {*_FLAG.findall(_module_helps()[module])})


def _check_install(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments:
        if wanted := re.fullmatch(r"\.\[(.*)\]", word):
            assert {*wanted[1].split(",")} <= extras.keys(), f"no such extra: {word}"


def _check_compose(arguments: list[str]) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    for flag, profile in pairwise(arguments):
        assert flag != "--profile" or profile in profiles, f"there is no profile {profile}"


def _foreign_flags() -> set[str]:
    """Return the flags of other programs that the documents mention: Docker's."""
    return {"--profile"}


@cache
def _gram_help(*arguments: str) -> str:
    with redirect_stdout(StringIO()) as told, suppress(SystemExit):
        CliApp.run(Gram, cli_args=[*arguments, "--help"], cli_settings_source=None)
    return told.getvalue()


@cache
def _subcommands() -> list[str]:
    listed = re.search(r"\{([\w,]+)\}", _gram_help())
    assert listed
    return listed[1].split(",")


@cache
def _gram_flags(subcommand: str) -> set[str]:
    if subcommand.startswith("-"):
        return {*_FLAG.findall(_gram_help())}
    assert subcommand in _subcommands(), f"gram has no {subcommand}"
    told = _gram_help(subcommand)
    inner = re.search(r"subcommands:\s+\{([\w,]+)\}", told)
    return {*_FLAG.findall("".join([told, *(_gram_help(subcommand, name) for name in (inner[1].split(",") if inner else []))]))}


@cache
def _module_helps() -> dict[str, str]:
    """Return the --help of each module that is a command. One process runs them all, because most import torch."""
    places = {"benchmarks": "benchmarks", "models": "gram.models", "server": "gram.server"}
    modules = [
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts])
        for folder, package in places.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        if 'if __name__ == "__main__"' in path.read_text()
    ]
    command = [sys.executable, "-W", "ignore", "-c", _HELPS, *modules]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    helps: dict[str, str] = json.loads(told.stdout)
    return helps
