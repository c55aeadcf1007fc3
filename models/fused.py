"""The network on a GPU, for serving: kernels/gpu/step.py makes a whole supervision step of a row in one program."""

import logging
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gram.kernels.gpu.interpreter import interpreting
from gram.kernels.gpu.layout import CHUNK, DIMS, MAX_LENGTH, PackedModel, padded
from gram.kernels.gpu.step import step
from gram.kernels.noise import NoiseKey
from gram.models.config import ModelConfig
from gram.models.layers import Attention, Core, PositionMixer, SwiGLU
from gram.models.network import GRAM, State

_log = logging.getLogger("gram")


def misfit(config: ModelConfig, dtype: torch.dtype) -> str | None:
    """Why the kernel can't make the steps of a network; None if it can."""
    if config.dim not in DIMS:
        return f"it has {config.dim} channels, and {', '.join(map(str, DIMS))} are known"
    if config.length > MAX_LENGTH:
        return f"it has {config.length} positions, and {MAX_LENGTH} fit"
    if dtype == torch.float32 and not interpreting():
        return "it computes in float32, which tensor cores round"
    return None


def fused_step(model: GRAM) -> "FusedStep | None":
    """The supervision step of a model on a GPU, compiled; None if the kernel can't make it, and then the log says why."""
    reason = misfit(model.config, model.dtype)
    if reason is None:
        made = FusedStep(model)
        try:
            made.compile(model)
        except Exception as error:  # a GPU with less shared memory, or another Triton: the other kernels compute the same
            line = str(error).partition("\n")[0]
            reason = f"{type(error).__name__}: {line}"
        else:
            return made
    _log.info("no program makes a whole step of this network (%s): its operations are kernels of their own, slower", reason)
    return None


class FusedStep:
    """Makes supervision steps of any number of rows; a row's bits depend on the row alone."""

    def __init__(self, model: GRAM) -> None:
        config, dtype = model.config, model.dtype
        cores = [model.f_low] if config.shared_core else [model.f_low, model.f_high]
        attention = config.mixing == "attention"
        cos = sin = prior = bias = torch.zeros(1)
        if attention:
            mixer = cast("Attention", cast("Core", model.f_low).mixers[0])
            cos, sin = (_rotation(table, config) for table in (mixer.cos, mixer.sin))
        if config.guidance != "none":
            heads = [model.prior.log_sigma, *([model.prior.mean] if config.guidance == "full" else [])]
            prior = torch.cat([_swiglu(head, config.dim) for head in heads])
            bias = model.prior.log_sigma_bias.detach()
        device = model.initial_h.device
        self.packed = PackedModel(
            length=config.length,
            dim=config.dim,
            mixer_dim=_chunks(config.mixer_dim),
            mlp_dim=_chunks(config.mlp_dim),
            guidance_dim=_chunks(config.guidance_dim),
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            head_dim=config.dim // config.num_heads,
            low_steps=config.low_steps,
            transitions=config.transitions,
            attention=attention,
            norm_over_positions=config.mixer_norm == "positions",
            shared=config.shared_core,
            flat=config.flat,
            guided=config.guidance != "none",
            learned_mean=config.guidance == "full",
            log_sigma_min=config.log_sigma_min,
            log_sigma_max=config.log_sigma_max,
            cores=torch.cat([_core(cast("Core", core), config) for core in cores]).to(device, dtype),
            prior=prior.to(device, dtype),
            bias=bias.to(device, torch.float32),
            cos=cos.to(device, torch.float32),
            sin=sin.to(device, torch.float32),
        )

    def __call__(self, state: State, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> State:
        """As GRAM.perturb and GRAM.supervision_step: state, e_x [B, L, D], key [B], sigmas [B, 2] -> the next state."""
        with torch.cuda.device_of(e_x):  # type: ignore[no-untyped-call]
            return State(*step(self.packed, *state, e_x, key, sigmas))

    def compile(self, model: GRAM) -> None:
        """Make a step of one row, which compiles the kernel for its sizes. Raises what Triton raises."""
        state = model.initial_state(1)
        numbers = torch.zeros(1, dtype=torch.int64, device=state.h.device)
        key = NoiseKey(numbers, numbers, numbers, numbers.float())
        self(state, torch.zeros_like(state.h), key, torch.zeros(1, 2, device=state.h.device))


def _chunks(width: int) -> int:
    """A hidden width, padded to whole chunks."""
    return -(-width // CHUNK) * CHUNK


def _grown(weight: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix with zeros below and to its right, flat."""
    return F.pad(weight.detach(), (0, columns - weight.shape[1], 0, rows - weight.shape[0])).flatten()


def _swiglu(layer: SwiGLU, width: int) -> Tensor:
    gate, up = layer.gate_up.weight.chunk(2)
    return torch.cat([_grown(part, _chunks(len(gate)), width) for part in (gate, up, layer.down.weight.T)])


def _core(core: Core, config: ModelConfig) -> Tensor:
    parts = []
    for mixer, mlp in zip(core.mixers, core.mlps, strict=True):
        if isinstance(mixer, PositionMixer):
            parts.append(_swiglu(mixer.swiglu, padded(config.length)))
        else:
            parts.append(_attention(cast("Attention", mixer), config))
        parts.append(_swiglu(cast("SwiGLU", mlp), config.dim))
    return torch.cat(parts)


def _attention(layer: Attention, config: ModelConfig) -> Tensor:
    width = config.dim // config.num_heads
    half = padded(width // 2)
    query, key, value = layer.qkv.weight.view(3, config.num_heads, width, config.dim)
    out = layer.out.weight.T.view(config.num_heads, width, config.dim)
    return torch.cat(
        [
            _grown(part, rows, config.dim)
            for head in range(config.num_heads)
            for parts, rows in (
                ((*query[head].chunk(2), *key[head].chunk(2)), half),
                ((value[head], out[head]), 2 * half),
            )
            for part in parts
        ]
    )


def _rotation(table: Tensor, config: ModelConfig) -> Tensor:
    """The cosines or sines of a head's first half, which are those of its second half, too."""
    half = config.dim // config.num_heads // 2
    return _grown(table[:, :half], padded(config.length), padded(half))
