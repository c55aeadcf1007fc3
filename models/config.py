"""The sizes of a GRAM network and the config.json of a checkpoint: declared and checked here alone.

It needs no torch, so the API process can use it.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Size = Annotated[int, Field(gt=0)]

Mixing = Literal["swiglu", "attention"]
"""How positions exchange information: a SwiGLU over the position axis, or self-attention with RoPE."""

Axis = Literal["channels", "positions"]
"""What the norm behind the mixing of positions averages over. TRM's, behind its SwiGLU over positions, is over positions."""

GuidanceKind = Literal["full", "noise_only", "none"]
"""`full`: learned mean and sigma. `noise_only`: mu = 0. `none`: deterministic, which makes the model a TRM."""


class ModelConfig(BaseModel):
    """Everything that fixes the shape of the weights and the meaning of one supervision step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: Annotated[int, Field(gt=0, le=256, description="the symbols of a puzzle or an answer; one fits into a byte")]
    seq_len: Size = Field(description="puzzle tokens; the state has num_registers more positions")
    num_registers: Size = Field(4, description="register positions in front; the heads read position 0")
    dim: Size = 128
    num_layers: Size = 2
    mixing: Mixing = "swiglu"
    mixer_dim: Size = Field(256, description="hidden width of the SwiGLU over positions (mixing = swiglu)")
    mixer_norm: Axis = Field("channels", description="what the norm behind the mixing averages over; as TRM's: positions")
    num_heads: Size = Field(4, description="attention heads (mixing = attention)")
    float32_rope: bool = Field(False, description="rotate queries and keys in float32, as TRM and HRM do, in any dtype")
    learned_positions: bool = Field(True, description="add a learned vector for each position; TRM and HRM have none")
    mlp_dim: Size = Field(384, description="hidden width of the SwiGLU over channels")
    guidance_dim: Size = Field(128, description="hidden width of the SwiGLU heads for mu and log sigma")
    shared_core: bool = Field(True, description="f_L and f_H are one network, as in TRM")
    flat: bool = Field(False, description="one latent in place of two, h <- f(h + e_x), K_low + 1 times: a Looped Transformer")
    low_steps: Size = Field(2, description="K_low: low-level updates per transition")
    transitions: Size = Field(2, description="T: transitions per supervision step")
    supervision_steps: Size = Field(8, description="N_sup: supervision steps per trajectory in training")
    halt_threshold: float = Field(
        0.5, gt=0, lt=1, description="a trajectory halts when its halt probability exceeds this (App. A.1)"
    )
    guidance: GuidanceKind = "full"
    log_sigma_init: float = -2.0
    log_sigma_min: float = -8.0
    log_sigma_max: float = -1.0

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.dim % 4:
            raise ValueError(f"dim {self.dim} must be a multiple of 4, since a Philox counter gives four normals")
        if self.mixing == "attention" and self.dim % (2 * self.num_heads):
            raise ValueError(f"dim {self.dim} must be a multiple of 2 * num_heads ({2 * self.num_heads}) for RoPE")
        if not self.log_sigma_min <= self.log_sigma_init <= self.log_sigma_max:
            raise ValueError("log_sigma_init must lie between log_sigma_min and log_sigma_max")
        if self.flat and not self.shared_core:
            raise ValueError("flat has one latent and so one network; leave out shared_core")
        return self

    @property
    def length(self) -> int:
        """L: all latent positions, registers first."""
        return self.num_registers + self.seq_len


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
EVALUATION_FILE = "evaluation.json"
ZOO = Path(__file__).parent / "zoo"
"""The folder of the bundled checkpoints, each of which is a folder in it."""


class CheckpointError(ValueError):
    """A checkpoint can't be loaded; the message names the file and what is wrong with it."""


Ability = Literal["solve", "generate"]
"""`solve`: answer a puzzle. `generate`: make new boards from the task's empty input."""


Family = Literal["TRM", "HRM"]
"""Whose public code a checkpoint was made by."""


class Origin(BaseModel):
    """Where an imported checkpoint came from. Nothing is known of its figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family = Field(description="whose public code made it: TRM's or HRM's")
    source: str = Field(description="the file's name, or its address on the hub")
    sha256: str = Field(description="SHA-256 of that file, in hexadecimal")


class CheckpointConfig(BaseModel):
    """The content of config.json: the task of the weights, and the shape of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    checked: bool = Field(
        True, description="the task is registered and has a checker; false: a task of any name without code, N symbols of V"
    )
    generates: bool = Field(False, description="trained on the empty input, too, so POST /v1/generate may ask it")
    origin: Origin | None = Field(None, description="where an imported checkpoint came from")
    model: ModelConfig

    def can(self, ability: Ability) -> bool:
        """Whether a request may ask this of the model. Every model solves."""
        return ability == "solve" or self.generates


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside this one to write a checkpoint in. It takes this one's place only if nothing is raised."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        whole = Path(beside) / folder.name
        whole.mkdir()
        yield whole
        whole.rename(folder)


def read_config(folder: Path) -> CheckpointConfig:
    """Read the config.json in the folder of a checkpoint. Raises CheckpointError."""
    path = folder / CONFIG_FILE
    try:
        return CheckpointConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        hint = f"a checkpoint is a folder of {CONFIG_FILE} and {WEIGHTS_FILE}"
        raise CheckpointError(f"{path}: {error.strerror}; {hint}") from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Describe a validation error on one line: each bad key, and what is wrong with it."""
    return "; ".join(f"{place(e['loc']) or 'file'}: {e['msg']}" for e in error.errors())


def place(location: Iterable[str | int]) -> str:
    """The place of a validation error in the input. A part in <> only names the chosen member of a union, and is left out."""
    parts = (part if part.isprintable() else repr(part) for part in map(str, location))
    return ".".join(part for part in parts if not part.startswith("<"))
