"""The noise of kernels/noise.py in Triton: the same words, the same normals."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.noise import GUIDANCE_STREAM


@triton.jit
def _circle(word):
    """cos and sin of 2 pi (word >> 8 + 1/2) / 2^24.

    The angle is reduced to an eighth of a turn in whole numbers: exactly, and without the branch for huge angles that makes
    tl.cos and tl.sin several times as slow. The polynomials are those of Cephes (Moshier), accurate to float32.
    """
    quadrant = ((word >> 29) + 1) >> 1  # the nearest quarter turn, 0 .. 4
    x = (((word >> 8) - (quadrant << 22)).to(tl.int32, bitcast=True).to(tl.float32) + 0.5) * 3.7450702829238413e-07
    z = x * x
    sin = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x
    cos = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0
    odd = (quadrant & 1) != 0
    first, second = tl.where(odd, sin, cos), tl.where(odd, cos, sin)
    return tl.where(((quadrant + 1) & 2) != 0, -first, first), tl.where((quadrant & 2) != 0, -second, second)


@triton.jit
def _box_muller(first, second):
    """Two words -> two normals, the cosine's and the sine's."""
    uniform = ((first >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08  # kernels/noise.py explains the half step
    radius = tl.sqrt(-2.0 * tl.log(uniform))
    cos, sin = _circle(second)
    return radius * cos, radius * sin


@triton.jit
def four_normals(seed, index, transition, block, stream):
    """The four normals of each counter of a stream, in the order of the quarters of channels that they belong to.

    seed, index, transition: int64 tensors; block: int32 tensor, position * D/4 + i. They broadcast together.
    """
    last = (tl.zeros_like(block) + stream).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, block.to(tl.uint32), transition.to(tl.uint32), index.to(tl.uint32), last)
    cos01, sin01 = _box_muller(w0, w1)
    cos23, sin23 = _box_muller(w2, w3)
    return cos01, cos23, sin01, sin23


@triton.jit
def _kernel(
    out, seed, index, transition, stream: tl.constexpr, counters: tl.constexpr, quarter: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    keys = tl.load(seed + row), tl.load(index + row), tl.load(transition + row)
    first, second, third, fourth = four_normals(keys[0], keys[1], keys[2], block, stream)
    place = out + row * counters * 4 + block // quarter * (4 * quarter) + block % quarter
    mask = block < counters
    tl.store(place, first, mask)
    tl.store(place + quarter, second, mask)
    tl.store(place + 2 * quarter, third, mask)
    tl.store(place + 3 * quarter, fourth, mask)


def standard_normal(
    seed: Tensor, index: Tensor, transition: Tensor, length: int, dim: int, stream: int = GUIDANCE_STREAM
) -> Tensor:
    """As kernels.noise.standard_normal."""
    rows, counters = len(seed), length * dim // 4
    out = torch.empty(rows, length, dim, device=seed.device)
    seed, index, transition = seed.contiguous(), index.contiguous(), transition.contiguous()
    _kernel[(rows, triton.cdiv(counters, 1024))](out, seed, index, transition, stream, counters, dim // 4, BLOCK=1024)
    return out
