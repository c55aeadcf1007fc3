"""Checkpoints on the Hugging Face hub, by its own client library: hf:OWNER/NAME@REVISION.

What is fetched lies in that library's cache. What is served is made from it once, in a cache of our own; after that, no network
is needed. Nothing is fetched that was not asked for by name.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from gram.models.config import CONFIG_FILE, EVALUATION_FILE, WEIGHTS_FILE, written_whole
from gram.server.cli.errors import CommandError

_PREFIX = "hf:"
_ADDRESS = re.compile(r"hf:(\w[\w.-]*)/(\w[\w.-]*)@([^/]+)(?:/(.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """A repository at a commit, and the file that is meant, if it has several checkpoints."""

    owner: str
    name: str
    revision: str
    file: str | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The address that is written as a path; None if it is a path. Raises CommandError."""
        text = str(path)
        if not text.startswith(_PREFIX):
            return None
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise CommandError(f"{text}: an address on the hub is hf:OWNER/NAME@REVISION, or hf:OWNER/NAME@REVISION/FILE")
        if not _COMMIT.fullmatch(match[3]):
            raise CommandError(
                f"{text}: {match[3]} may come to mean something else; give the commit that you mean, 40 hexadecimal digits: "
                "the page of the repository shows them under History"
            )
        return cls(*match.groups())

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"hf:{self.repository}@{self.revision}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class Fetched:
    """What was fetched of a repository."""

    weights: Path
    """The file; what belongs to it lies beside it."""
    source: str
    """The file's address."""
    is_ours: bool
    """Whether it is in this project's format, and not of TRM's or HRM's public code."""


def local(paths: list[Path]) -> list[Path]:
    """The folders of checkpoints: the same, or for an address on the hub that of what is fetched. Raises CommandError."""
    return [_served(address) if (address := Address.read(path)) else path for path in paths]


def fetch(address: Address) -> Fetched:
    """Fetch the files of a checkpoint that we recognise, and nothing else. Raises CommandError."""
    try:
        from huggingface_hub import HfApi, errors
    except ModuleNotFoundError as error:
        raise CommandError(f"{address} needs huggingface_hub: pip install -e '.[hub]'") from error
    hub = HfApi()
    try:
        names = [*hub.list_repo_files(address.repository, revision=address.revision)]
        weights, beside = _wanted(address, names)
        paths = {}
        for name in (weights, *beside):
            print(f"gram: fetching {name} of hf:{address.repository}", file=sys.stderr)
            paths[name] = Path(hub.hf_hub_download(address.repository, name, revision=address.revision))
    except errors.RevisionNotFoundError as error:
        raise CommandError(f"{address}: {address.repository} has no such commit") from error
    except errors.RepositoryNotFoundError as error:
        raise CommandError(f"{address}: there is no such repository, or it needs a login: hf auth login") from error
    except CommandError:
        raise
    except Exception as error:  # of many kinds: whatever the client's own network library raises
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise CommandError(f"{address} can't be fetched: {told}; is there a network?") from error
    is_ours = _sibling(weights, CONFIG_FILE) in paths
    return Fetched(paths[weights], f"hf:{address.repository}@{address.revision}/{weights}", is_ours)


def _wanted(address: Address, names: list[str]) -> tuple[str, list[str]]:
    """The file of the weights in a repository, and those that belong to it."""
    from gram.models.data_sets import ABOUT_FILE
    from gram.models.importing.source import ALL_CONFIG_FILE, checkpoint_files

    found = [address.file] if address.file in names else [] if address.file else checkpoint_files(names)
    if not found:
        what = address.file or "checkpoint: no step_N, *.pt, *.pth or *.safetensors"
        raise CommandError(f"{address}: the repository has no {what}")
    if len(found) > 1:
        raise CommandError(
            f"{address}: there are {len(found)} checkpoints; name one, as {address}/{found[0]}: {', '.join(found)}"
        )
    (weights,) = found
    theirs = [name for name in (ALL_CONFIG_FILE, ABOUT_FILE) if _sibling(weights, name) in names]
    is_ours = not theirs and PurePosixPath(weights).name == WEIGHTS_FILE
    beside = [CONFIG_FILE, EVALUATION_FILE] if is_ours else theirs
    return weights, [sibling for name in beside if (sibling := _sibling(weights, name)) in names]


def _sibling(file: str, name: str) -> str:
    return str(PurePosixPath(file).with_name(name))


def _served(address: Address) -> Path:
    """The folder in our cache from which a checkpoint of the hub is served. It is made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gram" / "hub"
    folder = cache / address.owner / address.revision / (address.file or "") / address.name  # its name is the model's
    if folder.exists():
        return folder
    fetched = fetch(address)
    if not fetched.is_ours:
        from gram.models.importing import import_checkpoint

        for line in import_checkpoint(fetched.weights, folder, source_name=fetched.source).report():
            print(f"gram: {line}", file=sys.stderr)
        return folder
    with written_whole(folder) as whole:
        for name in (CONFIG_FILE, WEIGHTS_FILE, EVALUATION_FILE):
            if (file := fetched.weights.with_name(name)).exists():
                shutil.copyfile(file, whole / name)
    return folder
