"""Checkpoints: a folder with config.json and model.safetensors, loaded strictly. Never pickle.

The matrices are stored in bfloat16, the dtype in which they are served wherever the machine multiplies in it. All other tensors
are stored in float32. So a model that is served in bfloat16 is, bit for bit, the model that was trained. An imported checkpoint
keeps its matrices in float32, so that it can be compared with the code that made it.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gram.models.config import CONFIG_FILE, WEIGHTS_FILE, CheckpointConfig, CheckpointError, read_config
from gram.models.network import GRAM

_TRAINING_ONLY = ("posterior.", "target_embedding")
"""What the names of tensors begin with that training alone needs."""


def save_checkpoint(
    folder: Path, config: CheckpointConfig, model: GRAM, *, matrices_dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a checkpoint for serving: z_0 included, the posterior left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config.model_dump(exclude_none=True), indent=2) + "\n")
    matrices = _matrices(model)
    weights = {
        name: tensor.to(matrices_dtype if name in matrices else torch.float32).contiguous()
        for name, tensor in served_weights(model).items()
    }
    (folder / WEIGHTS_FILE).write_bytes(save(weights))


def load_checkpoint(folder: Path, device: torch.device, dtype: torch.dtype) -> GRAM:
    """Load a model for serving, without the posterior. Raises CheckpointError naming each tensor that doesn't fit."""
    config = read_config(folder).model
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    model = GRAM(config, dtype, posterior=False)
    own, matrices = served_weights(model), _matrices(model)
    given = {name: t for name, t in tensors.items() if not name.startswith(_TRAINING_ONLY)}
    problems = [f"{name} is missing" for name in own.keys() - given.keys()]
    problems += [f"{name} is unexpected" for name in given.keys() - own.keys()]
    for name in own.keys() & given.keys():
        if given[name].shape != own[name].shape:
            problems.append(f"{name} has shape {list(given[name].shape)}, the configuration asks for {list(own[name].shape)}")
        elif given[name].dtype not in (allowed := (torch.bfloat16, torch.float32) if name in matrices else (torch.float32,)):
            problems.append(f"{name} is of type {given[name].dtype}, the format asks for {' or '.join(map(str, allowed))}")
        elif not given[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise CheckpointError(f"{path}: " + "; ".join(sorted(problems)))
    model.load_state_dict(given, strict=False)  # a shared core is stored once; the checks above were strict
    return model.to(device).cast_weights().eval().requires_grad_(False)


def fingerprint(folder: Path) -> str:
    """The SHA-256 of a checkpoint's files, in hexadecimal: two fingerprints differ if the models do."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def served_weights(model: GRAM) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: without the posterior, and a network shared by f_L and f_H once."""
    left_out = ("f_high.", *_TRAINING_ONLY) if model.config.shared_core else _TRAINING_ONLY
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(left_out)}


def _matrices(model: GRAM) -> set[str]:
    """The names of the matrices, which are stored in bfloat16."""
    return {f"{name}.weight" for name in model.matrices}
