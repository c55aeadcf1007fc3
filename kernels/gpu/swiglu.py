"""kernels/swiglu.py in Triton: one pass over memory."""

import math

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _kernel(gate_up, out, size, HALF: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    gate = gate_up + i + i // HALF * HALF
    up = tl.load(gate + HALF, mask).to(tl.float32)
    gate = tl.load(gate, mask).to(tl.float32)
    tl.store(out + i, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask)


def swiglu(gate_up: Tensor, dim: int = -1) -> Tensor:
    """As kernels.swiglu.swiglu."""
    gate_up, shape = gate_up.contiguous(), list(gate_up.shape)
    shape[dim] //= 2
    out = gate_up.new_empty(shape)
    # Along any axis, memory holds runs of gates and of ups in turn. A run is half of the axis times all axes after it.
    half = math.prod(shape[dim % len(shape) :])
    _kernel[(triton.cdiv(out.numel(), BLOCK),)](gate_up, out, out.numel(), half, BLOCK=BLOCK)
    return out
