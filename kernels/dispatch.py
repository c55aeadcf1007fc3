"""The one place that chooses between Triton and PyTorch: callers take every kernel from here.

CUDA tensors go to Triton, others to PyTorch. The environment variable GRAM_KERNELS forces "triton" or "torch"; Triton takes
CPU tensors where TRITON_INTERPRET=1 has it interpret its kernels, for tests. The Triton kernels have no backward: whatever
needs gradients, or is being traced by torch.compile, which makes kernels of its own, is left to PyTorch.
"""

import functools
import importlib
import logging
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

import kernels.norm
import kernels.readout
import kernels.swiglu
import kernels.transition

VARIABLE = "GRAM_KERNELS"
ALLOWED = ("triton", "torch")

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def uses_triton(*tensors: Tensor) -> bool:
    """Whether Triton computes a kernel of these inputs.

    Raises ValueError for an unknown GRAM_KERNELS, RuntimeError where it forces Triton on tensors that Triton cannot take.
    """
    forced = os.environ.get(VARIABLE) or None
    if forced not in (None, *ALLOWED):
        raise ValueError(f"{VARIABLE} is {forced!r}; set it to {' or '.join(map(repr, ALLOWED))}, or leave it unset")
    if forced == "torch" or torch.compiler.is_compiling():
        return False
    on_gpu = all(tensor.is_cuda for tensor in tensors)
    if not on_gpu and forced is None:
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if any(tensor.numel() >= 2**31 for tensor in tensors):  # offsets are 32-bit
        return False
    if not _triton_is_here():
        return False
    if not on_gpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"{VARIABLE}=triton needs CUDA tensors; for tensors on the CPU set TRITON_INTERPRET=1 too, or unset it"
        )
    return True


@functools.cache
def _triton_is_here() -> bool:
    """Asked when Triton is first wanted, so that a server without a GPU never imports it; says once that it is missing."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        _logger.warning("triton cannot be imported (%s): the kernels run in PyTorch, slower; pip install triton", error)
        return False
    return True


def _dispatched(reference: Callable[_P, _R]) -> Callable[_P, _R]:
    """`reference`, or, where Triton is used, its namesake in kernels.gpu."""
    package, module = reference.__module__.split(".")
    name = reference.__name__

    @functools.wraps(reference)
    def kernel(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not uses_triton(*(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))):
            return reference(*args, **kwargs)
        fused: Callable[_P, _R] = getattr(importlib.import_module(f"{package}.gpu.{module}"), name)
        return fused(*args, **kwargs)

    return kernel


stochastic_transition = _dispatched(kernels.transition.stochastic_transition)
guided_transition = _dispatched(kernels.transition.guided_transition)
add_rms_norm = _dispatched(kernels.norm.add_rms_norm)
swiglu = _dispatched(kernels.swiglu.swiglu)
readout = _dispatched(kernels.readout.readout)
