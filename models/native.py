"""The network on a CPU with AVX-512, for serving: kernels/cpu makes a whole supervision step of a row at a time."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gram.kernels.cpu.library import ModelArguments, RowArguments, computes, library
from gram.kernels.noise import NoiseKey
from gram.models.config import ModelConfig
from gram.models.layers import Core, PositionMixer, SwiGLU
from gram.models.network import GRAM, State

_LANES = 16
"""Numbers of float32 in a register."""


def fits(config: ModelConfig) -> bool:
    """Whether the kernels know networks of this kind, and of these sizes: they take channels 32 or 64 at a time."""
    widths = [config.mlp_dim, *([] if config.guidance == "none" else [config.guidance_dim])]
    return config.mixing == "swiglu" and config.dim % 64 == 0 and config.mixer_dim % 2 == 0 and all(w % 32 == 0 for w in widths)


def native_step(model: GRAM) -> "NativeStep | None":
    """The supervision step of a model, or None if the kernels can't make it on this machine."""
    able = model.initial_h.device.type == "cpu" and computes(model.dtype) and fits(model.config)
    return NativeStep(model) if able else None


@dataclass(frozen=True)
class Shown:
    """What a step shows of its rows, and where.

    last: int64 [B], the transitions after which each row ends at the latest. halt_threshold: float32 [B]. report: uint8 [B, n],
    where each row's numbers and answer are written as the bytes of kernels.readout.Readout, n >= 16 + N.
    """

    last: Tensor
    halt_threshold: Tensor
    report: Tensor


class NativeStep:
    """Makes supervision steps of any number of rows; a row's bits depend on the row alone."""

    def __init__(self, model: GRAM) -> None:
        config, dtype = model.config, model.dtype
        self._kept: list[object] = []  # what the pointers point to
        pack = _Pack(dtype)
        low = self._pointers(pack.core(cast("Core", model.f_low)))
        high = low if config.shared_core else self._pointers(pack.core(cast("Core", model.f_high)))
        prior = []
        if config.guidance != "none":
            mean = pack.swiglu(model.prior.mean) if config.guidance == "full" else [torch.empty(0)] * 2
            prior = [*mean, *pack.swiglu(model.prior.log_sigma), model.prior.log_sigma_bias.detach().float().contiguous()]
        self._model = ModelArguments(
            config.length,
            config.dim,
            config.mixer_dim,
            config.mlp_dim,
            config.guidance_dim,
            config.num_layers,
            config.low_steps,
            config.transitions,
            config.num_registers,
            len(model.decoder.weight),
            config.flat,
            config.mixer_norm == "positions",
            config.guidance != "none",
            config.guidance == "full",
            config.log_sigma_min,
            config.log_sigma_max,
            low,
            high,
            self._pointers(prior),
            self._pointers(_readout(model)),
        )
        name = f"gram_step_{str(dtype).removeprefix('torch.')}"
        self._function = cast("Callable[..., bool]", getattr(library(), name))
        self._function.restype = ctypes.c_bool  # type: ignore[attr-defined]

    def __call__(self, state: State, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> State:
        """As GRAM.perturb and GRAM.supervision_step: state, e_x [B, L, D], key [B], sigmas [B, 2] -> the next state."""
        after = State(*(z.clone(memory_format=torch.contiguous_format) for z in state))
        self.share(after, e_x.contiguous(), torch.arange(len(after.h)), key, sigmas)()
        return after

    def share(
        self, state: State, e_x: Tensor, puzzle: Tensor, key: NoiseKey, sigmas: Tensor, shown: Shown | None = None
    ) -> Callable[[], None]:
        """Prepare a step of rows, in place, and return what makes it: each thread that calls it takes rows until none is left.

        state: [B, L, D], and e_x: [places, L, D], both contiguous. puzzle: int64 [B], the place of each row's puzzle in e_x.
        key: [B]. sigmas: [B, 2]. All rows are stepped when the last call has returned. A call raises RuntimeError if there
        is no memory for it.
        """
        tensors = [*state, e_x, *(part.contiguous() for part in (puzzle, *key.parts, sigmas))]
        stride = 0
        if shown:
            tensors += [shown.last.contiguous(), shown.halt_threshold.contiguous(), shown.report]
            stride = shown.report.stride(0)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        rows = RowArguments(*pointers, stride=stride, count=len(puzzle))
        rows.kept = tensors
        arguments = ctypes.byref(self._model), ctypes.byref(rows), ctypes.byref(ctypes.c_int32(0))

        def step() -> None:
            if not self._function(*arguments):
                raise RuntimeError("can't allocate memory for a step")

        return step

    def _pointers(self, tensors: list[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
        self._kept += tensors
        return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


class _Pack:
    """Lays out weights as step.hpp reads them, in order."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._pair = 2 if dtype == torch.bfloat16 else 1  # the neighbours of the summed axis that one multiplication takes

    def core(self, core: Core) -> list[Tensor]:
        """The four weights of each layer."""
        layers = zip(core.mixers, core.mlps, strict=True)
        return [
            weight
            for mixer, mlp in layers
            for weight in (*self._positions(cast("PositionMixer", mixer).swiglu), *self.swiglu(cast("SwiGLU", mlp)))
        ]

    def swiglu(self, layer: SwiGLU) -> list[Tensor]:
        """gate_up and down of a SwiGLU over channels: columns of 32 gates beside their 32 ups, and columns of 64."""
        gates, ups = (_grouped(half, 2) for half in self._operands(layer.gate_up.weight).chunk(2))
        columns = torch.cat([gates, ups], dim=1), _grouped(self._operands(layer.down.weight), 4)
        return [part.transpose(1, 2).contiguous() for part in columns]  # [columns, in / pair, 4, 16, pair]

    def _positions(self, layer: SwiGLU) -> list[Tensor]:
        """gate_up and down of a SwiGLU over positions, as they are, with columns of zeros to a whole number of pairs."""
        up, down = layer.gate_up.weight.to(self._dtype), layer.down.weight.to(self._dtype)
        return [F.pad(up, (0, up.shape[1] % self._pair)).contiguous(), down.contiguous()]

    def _operands(self, weight: Tensor) -> Tensor:
        """W [out, in] -> [out / 16, in / pair, 16, pair]: what one multiplication takes lies together."""
        out, depth = weight.shape
        weight = weight.to(self._dtype).view(out // _LANES, _LANES, depth // self._pair, self._pair)
        return weight.transpose(1, 2)


def _readout(model: GRAM) -> list[Tensor]:
    """The weights of the heads and of the decoder."""
    assert model.heads.bias is not None
    weights = (model.heads.weight.float(), model.heads.bias.float(), model.decoder.weight.to(model.dtype))
    return [weight.detach().contiguous() for weight in weights]


def _grouped(x: Tensor, size: int) -> Tensor:
    """[n, ...] -> [n / size, size, ...]."""
    return x.reshape(-1, size, *x.shape[1:])
