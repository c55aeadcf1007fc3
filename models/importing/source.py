"""Reads a checkpoint of TRM's or HRM's public code: the tensors, and the files beside them. Only tensors are unpickled."""

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gram.models.config import CheckpointError, Size, describe
from gram.models.data_sets import ABOUT_FILE, About

ALL_CONFIG_FILE = "all_config.yaml"
_WEIGHTS = re.compile(r"step_\d+|.+\.(pt|pth|safetensors)")
_PREFIXES = re.compile(r"(_orig_mod\.|module\.|model\.|inner\.)+")
"""What torch.compile, the loss head and the carry put in front of a tensor's name."""
_FORBIDDEN = re.compile(r"unsupported (?:global: )?(?:GLOBAL|class) ([\w.]+)", re.IGNORECASE)
"""How torch says what it does not unpickle."""
_WRAPPERS = ("model_state_dict", "state_dict", "model")
_AVERAGED = "ema"
"""Names under which people save a state_dict; the averaged weights, if a file has both, are those that are evaluated."""

Whole = Annotated[int, Field(ge=0)]


class Arch(BaseModel):
    """The network as `arch` in all_config.yaml describes it; None: it does not say. Other keys could change the network."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str | None = None
    hidden_size: Size | None = None
    num_heads: Size | None = None
    h_layers: Whole | None = Field(None, alias="H_layers")
    l_layers: Size | None = Field(None, alias="L_layers")
    h_cycles: Size | None = Field(None, alias="H_cycles")
    l_cycles: Size | None = Field(None, alias="L_cycles")
    mlp_t: bool | None = None
    pos_encodings: Literal["rope", "none", "learned"] | None = None
    puzzle_emb_len: Whole | None = None
    puzzle_emb_ndim: Whole | None = None
    halt_max_steps: Size = 16
    no_act_continue: bool = Field(True, alias="no_ACT_continue")
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    vocab_size: Size | None = None
    seq_len: Size | None = None
    # What changes no answer, or is read from the tensors.
    loss: object = None
    expansion: float | None = None
    forward_dtype: str | None = None
    halt_exploration_prob: float | None = None
    batch_size: int | None = None
    num_puzzle_identifiers: int | None = None


class AllConfig(BaseModel):
    """What is needed of all_config.yaml."""

    arch: Arch
    data_path: str | None = None
    data_paths: list[str] = []


@dataclass(frozen=True)
class Source:
    """A checkpoint as it was found."""

    file: Path
    tensors: dict[str, Tensor]
    """By their names without prefixes."""
    arch: Arch
    described: bool
    """Whether there is an all_config.yaml."""
    data: About | None
    data_name: str | None
    """The name of the folder of the training data."""
    left_out: list[str]
    """What else the file has."""


def read_source(path: Path) -> Source:
    """Read a checkpoint: a file, or a folder with only one. Raises CheckpointError or OSError."""
    file = _weights_in(path)
    tensors, left_out = _unwrapped(file, _load(file))
    beside = _read_all_config(file.with_name(ALL_CONFIG_FILE))
    names = [] if beside is None else [beside.data_path, *beside.data_paths]
    data_name = next((Path(name).name for name in names if name), None)
    arch = Arch() if beside is None else beside.arch
    return Source(file, tensors, arch, beside is not None, _read_about(file.with_name(ABOUT_FILE)), data_name, left_out)


def checkpoint_files(names: list[str]) -> list[str]:
    """The files that may be checkpoints: step_N, the public code's own name, or if there is none *.pt, *.pth, *.safetensors."""
    found = sorted(name for name in names if _WEIGHTS.fullmatch(PurePath(name).name))
    return [name for name in found if not PurePath(name).suffix] or found


def _weights_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = checkpoint_files([file.name for file in path.iterdir() if file.is_file()])
    if not found:
        raise CheckpointError(f"{path} has no checkpoint: no step_N, *.pt, *.pth or *.safetensors")
    if len(found) > 1:
        raise CheckpointError(f"{path} has {len(found)} checkpoints; name one of them: {', '.join(found)}")
    return path / found[0]


def _load(path: Path) -> object:
    """The content of a file: tensors in dictionaries, and perhaps numbers and texts. Nothing else is ever unpickled."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    cut = f"{path} can't be read: it is cut off, or torch.save did not write it; fetch it again"
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{cut} ({error})") from error
    if zipped and not zipfile.is_zipfile(path):
        raise CheckpointError(cut)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # of many kinds: whatever a damaged file leads to
        if forbidden := _FORBIDDEN.search(str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors, {forbidden[1]}, which is never unpickled since it could run anything; "
                "ask its author for torch.save(model.state_dict(), ...)"
            ) from error
        raise CheckpointError(cut) from error


def _unwrapped(file: Path, content: object) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by their names without prefixes, and what the file has beside them."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not tensors by their names")
    wrapped = [name for name in _WRAPPERS if isinstance(content.get(name), dict)][:1]
    wrapped += [_AVERAGED] if isinstance(content.get(_AVERAGED), dict) else []
    if not wrapped:
        return _named(file, content), []
    tensors: dict[str, Tensor] = {}
    for name in wrapped:
        tensors |= _named(file, content[name])
    return tensors, [str(name) for name in content if name not in wrapped]


def _named(file: Path, tensors: dict[object, object]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = _PREFIXES.sub("", str(full), count=1) if _PREFIXES.match(str(full)) else str(full)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{file}: {full} is a {type(tensor).__name__}, not a tensor; give a file of a state_dict")
        if name in found:
            raise CheckpointError(f"{file} has {name} twice, with different prefixes")
        found[name] = tensor
    return found


def _read_all_config(path: Path) -> AllConfig | None:
    try:
        return AllConfig.model_validate(yaml.safe_load(path.read_bytes()))
    except FileNotFoundError:
        return None
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: {describe(error)}; keep the file as the public code wrote it, or move it away"
        ) from error


def _read_about(path: Path) -> About | None:
    try:
        return About.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CheckpointError(f"{path}: {describe(error)}") from error
