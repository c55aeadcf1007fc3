"""The compiled kernels of this folder: whether there are any, whether this processor can run them, and their arguments."""

import ctypes
import functools
import logging
from pathlib import Path

import torch

_log = logging.getLogger("gram")

_FILE = "_step.*.so"
"""The extension's file, which pip builds if there is a C++ compiler for x86-64."""


class ModelArguments(ctypes.Structure):
    """step.hpp's Model."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("length", "dim", "mixer_dim", "mlp_dim", "guidance_dim", "layers")),
        *((name, ctypes.c_int32) for name in ("low_steps", "transitions", "registers", "symbols", "flat")),
        *((name, ctypes.c_int32) for name in ("norm_over_positions", "guidance", "learned_mean")),
        ("log_sigma_min", ctypes.c_float),
        ("log_sigma_max", ctypes.c_float),
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("low", "high", "prior", "readout")),
    ]


class RowArguments(ctypes.Structure):
    """step.hpp's Rows. `kept`: the tensors that it points to."""

    kept: list[torch.Tensor]

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("h", "low", "e_x", "puzzle", "seed", "index", "transition")),
        *((name, ctypes.c_void_p) for name in ("temperature", "sigmas", "last", "threshold", "report")),
        *((name, ctypes.c_int32) for name in ("stride", "count")),
    ]


INTERFACE = 2_000_000 + ctypes.sizeof(ModelArguments) * 1000 + ctypes.sizeof(RowArguments)
"""step.hpp's kInterface."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None if there are none of this version. While one runs, other Python threads do, too."""
    found = next(Path(__file__).parent.glob(_FILE), None)
    return load(found) if found else None


def load(file: Path) -> ctypes.CDLL | None:
    """Load compiled kernels; None, and a line in the log, if they were built from sources with another interface."""
    loaded = ctypes.CDLL(str(file))
    if getattr(loaded, "gram_interface", int)() == INTERFACE:
        return loaded
    _log.warning("%s was built by another version: steps are slower; build it again by pip install -e .", file.name)
    return None


def computes(dtype: torch.dtype) -> bool:
    """Whether the kernels are built, and this processor has what they need for a dtype."""
    has_bfloat16 = dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()
    able = torch.cpu._is_avx512_supported() and (dtype == torch.float32 or has_bfloat16)
    return able and library() is not None
