"""The network on a CPU, for serving: oneDNN's matrix products, each with what follows it.

The weights are laid out for oneDNN once, when a model is loaded. A product applies silu, multiplies by the gate or adds the
residual to its own sums, before they are rounded and leave the cache, so a step passes less often over its activations. In
float32, PyTorch by itself would take MKL's products, which on many processors are a fraction as fast.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gram.kernels.dispatch import stochastic_transition
from gram.kernels.noise import NoiseKey
from gram.kernels.norm import EPS
from gram.models.layers import Attention, Core, Module, PositionMixer, SwiGLU
from gram.models.network import GRAM, Guidance


def can_pack(model: GRAM) -> bool:
    """Whether the model is on a CPU for which PyTorch was built with oneDNN's products."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    products = built and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return model.initial_h.device.type == "cpu" and products


def pack(model: GRAM, tile: int) -> None:
    """Lay out the weights of a model, in place, for steps of `tile` rows. From then on it can only be served."""
    layout = _Layout(model.dtype, tile * model.config.length)
    shared = model.f_high is model.f_low
    model.f_low = PackedCore(cast("Core", model.f_low), layout)
    model.f_high = model.f_low if shared else PackedCore(cast("Core", model.f_high), layout)
    if model.config.guidance != "none":
        model.packed_prior = PackedGuidance(model.prior, layout)


class _Layout:
    """What weights are laid out for: a dtype, and products of about this many rows."""

    def __init__(self, dtype: torch.dtype, rows: int) -> None:
        self._dtype = dtype
        self._rows = rows

    def matrix(self, weight: Tensor) -> "_Matrix":
        return _Matrix(torch.ops.mkldnn._reorder_linear_weight(weight.to(self._dtype).contiguous(), self._rows))


class _Matrix:
    """W [out, in], for products x W^T: [..., in] -> [..., out]."""

    def __init__(self, laid_out: Tensor) -> None:
        self._weight = laid_out

    def product(self, x: Tensor, activation: str = "none") -> Tensor:
        """The product, or its "swish", which is silu."""
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, self._weight, None, activation, [], ""))

    def product_and(self, operation: str, x: Tensor, other: Tensor) -> Tensor:
        """The product "add" or "mul" other [..., out]."""
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, None, operation))


class _PackedSwiGLU:
    """As models.layers.SwiGLU."""

    def __init__(self, layer: SwiGLU, layout: _Layout) -> None:
        self._gate, self._up = (layout.matrix(half) for half in layer.gate_up.weight.chunk(2))
        self.down = layout.matrix(layer.down.weight)

    def hidden(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., hidden]."""
        return self._up.product_and("mul", x, self._gate.product(x, "swish"))

    def __call__(self, x: Tensor) -> Tensor:
        return self.down.product(self.hidden(x))

    def plus(self, x: Tensor) -> Tensor:
        """The layer's output plus x [..., in]."""
        return self.down.product_and("add", self.hidden(x), x)


class PackedCore(Module):
    """As models.layers.Core: [B, L, D] -> [B, L, D]."""

    def __init__(self, core: Core, layout: _Layout) -> None:
        super().__init__()
        self._sublayers: list[Callable[[Tensor], Tensor]] = []
        for mixer, mlp in zip(core.mixers, core.mlps, strict=True):
            if isinstance(mixer, PositionMixer):
                self._sublayers.append(_mixing(_PackedSwiGLU(mixer.swiglu, layout), over_positions=core.norms_positions))
            else:
                self._sublayers.append(_attending(cast("Attention", mixer), layout))
            self._sublayers.append(_following(_PackedSwiGLU(cast("SwiGLU", mlp), layout)))

    def forward(self, x: Tensor) -> Tensor:
        for sublayer in self._sublayers:
            x = sublayer(x)
        return x


def _mixing(swiglu: _PackedSwiGLU, *, over_positions: bool) -> Callable[[Tensor], Tensor]:
    """A SwiGLU over positions, with its residual and norm."""

    def sublayer(x: Tensor) -> Tensor:
        mixed = swiglu.plus(x.transpose(1, 2).contiguous())  # [B, D, L]
        return _norm(mixed).transpose(1, 2).contiguous() if over_positions else _norm(mixed.transpose(1, 2).contiguous())

    return sublayer


def _attending(attention: Attention, layout: _Layout) -> Callable[[Tensor], Tensor]:
    """Self-attention, with its residual and norm."""
    qkv, out = layout.matrix(attention.qkv.weight), layout.matrix(attention.out.weight)
    return lambda x: _norm(out.product_and("add", attention.attend(qkv.product(x)), x))


def _following(mlp: _PackedSwiGLU) -> Callable[[Tensor], Tensor]:
    """A SwiGLU over channels, with its residual and norm."""
    return lambda x: _norm(mlp.plus(x))


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


class PackedGuidance:
    """As models.network.Guidance."""

    def __init__(self, guidance: Guidance, layout: _Layout) -> None:
        config = guidance.config
        self._clamp = config.log_sigma_min, config.log_sigma_max
        self._mean = _PackedSwiGLU(guidance.mean, layout) if config.guidance == "full" else None
        self._log_sigma = _PackedSwiGLU(guidance.log_sigma, layout)
        self._bias = guidance.log_sigma_bias.detach()

    def transition(self, u: Tensor, key: NoiseKey) -> Tensor:
        log_sigma = (self._log_sigma(u) + self._bias.to(u.dtype)).clamp(*self._clamp)
        mean = self._mean(u) if self._mean else torch.zeros_like(u)
        return stochastic_transition(u, mean, log_sigma, key)
