"""Imports checkpoints of TRM's and HRM's public code: `gram import`. docs/importing.md says what can be imported.

Their commits: SamsungSAILMontreal/TinyRecursiveModels e7b6871 and sapientinc/HRM 42410da.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from gram.models.checkpoint import load_checkpoint, save_checkpoint, served_weights
from gram.models.config import CheckpointConfig, CheckpointError, Origin, describe, written_whole
from gram.models.importing.layout import read_layout
from gram.models.importing.source import Arch, read_source
from gram.models.importing.weights import convert
from gram.models.network import GRAM


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    config: CheckpointConfig
    numbers: int
    """All numbers of the file's tensors."""
    left_out: list[str]
    """What of the file is not used, a sentence each."""

    def report(self) -> list[str]:
        """What people are told, in lines."""
        config, origin, sizes = self.config, self.config.origin, self.config.model
        assert origin is not None, "an imported checkpoint has one"
        checked = "" if config.checked else ", which nothing checks"
        return [
            f"{origin.family}, {self.numbers:,} numbers from {origin.source} of SHA-256 {origin.sha256}",
            f"answers {config.task}{checked}: {sizes.seq_len} cells of {sizes.vocab_size} symbols",
            *(f"left out: {what}" for what in self.left_out),
        ]


def import_checkpoint(
    path: Path, out: Path, *, task: str | None = None, given: Arch | None = None, source_name: str | None = None
) -> Imported:
    """Read a checkpoint and write it to the folder `out`, whole or not at all. Raises CheckpointError.

    given: what the user says of the network, which precedes the files. source_name: what config.json calls the file.
    """
    try:
        return _import(path, out, task, given or Arch(), source_name)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror or error}") from error


def _import(path: Path, out: Path, task: str | None, given: Arch, source_name: str | None) -> Imported:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already; name another folder with --out")
    source = read_source(path)
    layout = read_layout(source, given, task)
    weights, left_out = convert(source, layout)
    try:
        sizes = layout.model()
    except ValidationError as error:
        raise CheckpointError(f"{source.file}: {describe(error)}") from error
    with source.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = Origin(family=layout.family, source=source_name or source.file.name, sha256=digest)
    config = CheckpointConfig(task=layout.task, checked=layout.checked, origin=origin, model=sizes)
    model = GRAM(sizes, posterior=False)
    assert weights.keys() == served_weights(model).keys()
    model.load_state_dict(weights, strict=False)  # a shared core is stored once; the check above was strict
    with written_whole(out) as whole:
        save_checkpoint(whole, config, model, matrices_dtype=torch.float32)
        load_checkpoint(whole, torch.device("cpu"), torch.float32)  # as it will be when it is served
    return Imported(config, sum(tensor.numel() for tensor in source.tensors.values()), left_out)
