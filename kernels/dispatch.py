"""Dispatch chooses between Triton and PyTorch. Callers take every kernel from here.

CUDA tensors go to Triton, others to PyTorch. The environment variable GRAM_KERNELS forces "triton" or "torch"; with
TRITON_INTERPRET=1, for tests, Triton interprets its kernels on CPU tensors. PyTorch computes what needs gradients, since the
Triton kernels have no backward pass, and what torch.compile traces, since it makes kernels of its own. It computes everything
if Triton does not work, and the log says why.
"""

import functools
import importlib
import logging
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

import gram.kernels.norm
import gram.kernels.perturbation
import gram.kernels.readout
import gram.kernels.swiglu
import gram.kernels.transition

VARIABLE = "GRAM_KERNELS"
ALLOWED = ("triton", "torch")
CAPABILITY = (8, 0)
"""The lowest compute capability that Triton supports."""

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")


@functools.cache
def forced() -> str | None:
    """The value of GRAM_KERNELS, read once, since every step needs it dozens of times."""
    forced = os.environ.get(VARIABLE) or None
    if forced not in (None, *ALLOWED):
        raise ValueError(f"{VARIABLE} is {forced!r}; set it to {' or '.join(map(repr, ALLOWED))}, or leave it unset")
    return forced


@functools.cache
def _never_triton() -> bool:
    """Whether no tensor can go to Triton, as on a machine without a GPU."""
    return forced() == "torch" or not (forced() or torch.cuda.is_available())


def uses_triton(*tensors: Tensor) -> bool:
    """Whether Triton computes a kernel of these inputs.

    Raises ValueError for an unknown GRAM_KERNELS, RuntimeError if it forces Triton on tensors that Triton can't take.
    """
    on_gpu = all(tensor.is_cuda for tensor in tensors)
    if _never_triton() or not (on_gpu or forced()):
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if any(tensor.numel() >= 2**31 for tensor in tensors):  # offsets are 32-bit
        return False
    if not on_gpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"{VARIABLE}=triton needs CUDA tensors; for tensors on the CPU set TRITON_INTERPRET=1 too, or unset it"
        )
    return _triton_works(tensors[0].device)


@functools.cache
def _triton_works(device: torch.device) -> bool:
    """Try Triton when it is first wanted, so that a server without a GPU never imports it, and log once why it does not work.

    This runs a kernel: only that reveals a missing C compiler, or a cache folder that can't be written.
    """
    try:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
            raise RuntimeError(f"{torch.cuda.get_device_name(device)} is too old for it")
        x = torch.ones(16, device=device)
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            importlib.import_module("gram.kernels.gpu.swiglu").swiglu(x)
    except Exception as error:  # whatever is wrong, PyTorch computes the same
        reason = str(error).partition("\n")[0]
        _logger.warning("Triton does not work here (%s: %s): the kernels run in PyTorch, slower", type(error).__name__, reason)
        return False
    return True


def _dispatched(reference: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that calls `reference`, or its twin in kernels.gpu if Triton is used."""
    package, _, module = reference.__module__.rpartition(".")
    name = reference.__name__

    @functools.wraps(reference)
    def kernel(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if torch.compiler.is_compiling() or _never_triton():  # in this order: the other checks can't be traced
            return reference(*args, **kwargs)
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if not uses_triton(*tensors):
            return reference(*args, **kwargs)
        fused: Callable[_P, _R] = getattr(importlib.import_module(f"{package}.gpu.{module}"), name)
        # Triton launches on the current device, wherever the tensors are.
        with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
            return fused(*args, **kwargs)

    return kernel


stochastic_transition = _dispatched(gram.kernels.transition.stochastic_transition)
guided_transition = _dispatched(gram.kernels.transition.guided_transition)
add_rms_norm = _dispatched(gram.kernels.norm.add_rms_norm)
add_rms_norm_over_positions = _dispatched(gram.kernels.norm.add_rms_norm_over_positions)
swiglu = _dispatched(gram.kernels.swiglu.swiglu)
perturb = _dispatched(gram.kernels.perturbation.perturb)
readout = _dispatched(gram.kernels.readout.readout)
