"""What several tests share."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from gram.models.checkpoint import save_checkpoint
from gram.models.config import CheckpointConfig, ModelConfig
from gram.models.network import GRAM
from gram.models.tasks import Tokens
from gram.server.engine.engine import Engine
from gram.server.settings import EngineSettings

FIXED_SIZE = ("--slots", "8", "--threads", "1")
"""Flags of a server that measures nothing at its start, steps quickly, and leaves a core to what runs beside it."""


def unchecked_checkpoint(folder: Path, cells: int = 9) -> Path:
    """Write a checkpoint of the task "nine", which has no code: `cells` symbols of 9. Its random weights give many answers."""
    small = {"dim": 8, "num_layers": 1, "mixer_dim": 8, "mlp_dim": 8, "guidance_dim": 8, "num_registers": 1}
    sizes = ModelConfig(vocab_size=9, seq_len=cells, **small)
    torch.manual_seed(0)
    save_checkpoint(folder, CheckpointConfig(task="nine", checked=False, model=sizes), GRAM(sizes, torch.float32))
    return folder


def write_data_set(
    folder: Path, puzzles: Tokens, answers: Tokens | None, vocab_size: int, dtype: DTypeLike = np.uint8, **about: object
) -> Path:
    """Write symbols [n, N] as TRM's builders do: 1 is added, since 0 is padding. A symbol of -1 becomes padding."""
    folder.mkdir(parents=True)
    np.save(folder / "all__inputs.npy", (puzzles + 1).astype(dtype))
    if answers is not None:
        np.save(folder / "all__labels.npy", (answers + 1).astype(dtype))
    sizes = {"pad_id": 0, "ignore_label_id": 0, "vocab_size": vocab_size + 1, "seq_len": puzzles.shape[1], "sets": ["all"]}
    (folder / "dataset.json").write_text(json.dumps(sizes | about))
    return folder


def make_engine(checkpoint: Path, slots: int, threads: int | None = None) -> Engine:
    """An engine in this process. With one thread it steps all slots together, with more in halves that take turns."""
    return Engine(EngineSettings(model=[checkpoint], slots=slots, device="cpu", threads=threads))
