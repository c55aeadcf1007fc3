"""Checkpoints: a folder with config.json and model.safetensors, loaded strictly. Never pickle."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from models.config import CONFIG_FILE, WEIGHTS_FILE, CheckpointConfig, CheckpointError, ModelConfig, read_config
from models.gram import GRAM

_TRAINING_ONLY = ("posterior.", "target_embedding")


def save_checkpoint(folder: Path, task: str, model: GRAM) -> None:
    """Write the folder for serving: float32 weights, z_0 included, the posterior left out."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CheckpointConfig(task=task, model=model.config)
    (folder / CONFIG_FILE).write_text(json.dumps(config.model_dump(), indent=2) + "\n")
    weights = model.state_dict()
    served = {name: weights[name].contiguous() for name in served_names(config.model)}
    (folder / WEIGHTS_FILE).write_bytes(save(served))


def load_checkpoint(folder: Path, device: torch.device, dtype: torch.dtype) -> GRAM:
    """The model for serving, without the posterior. Raises CheckpointError naming each tensor that doesn't fit."""
    config = read_config(folder).model
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    with torch.device("meta"):
        model = GRAM(config, posterior=False)
    own = {name: model.state_dict()[name] for name in served_names(config)}
    given = {name: t for name, t in tensors.items() if not name.startswith(_TRAINING_ONLY)}
    problems = [f"{name} is missing" for name in own.keys() - given.keys()]
    problems += [f"{name} is unexpected" for name in given.keys() - own.keys()]
    for name in own.keys() & given.keys():
        if given[name].shape != own[name].shape:
            problems.append(f"{name} has shape {list(given[name].shape)}, the configuration asks for {list(own[name].shape)}")
        elif not given[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise CheckpointError(f"{path}: " + "; ".join(sorted(problems)))
    model = GRAM(config, dtype, posterior=False)
    model.load_state_dict(given, strict=False)  # a shared core is stored once; the check above was the strict one
    return model.to(device).cast_weights().eval().requires_grad_(False)


def served_names(config: ModelConfig) -> list[str]:
    """The tensors of a served checkpoint: a network shared by f_L and f_H is stored once."""
    with torch.device("meta"):
        names = GRAM(config, posterior=False).state_dict()
    return [name for name in names if not (config.shared_core and name.startswith("f_high."))]
