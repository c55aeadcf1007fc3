"""kernels/perturbation.py in Triton. The noise never reaches memory; rows without it are only copied."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.gpu.noise import four_normals
from gram.kernels.noise import NoiseKey

COUNTERS = 512
"""Counters per program; each makes the noise of four channels."""


@triton.jit
def _move(z, out, place, mask, scale, noise):
    moved = tl.load(z + place, mask).to(tl.float32) + scale * noise
    tl.store(out + place, moved.to(out.dtype.element_ty), mask)


@triton.jit
def _kernel(
    z,
    out,
    seed,
    index,
    transition,
    sigma,
    seed_stride,
    index_stride,
    transition_stride,
    sigma_stride,
    COUNTERS: tl.constexpr,
    Q: tl.constexpr,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    counter = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = counter < COUNTERS
    place = row * (COUNTERS * 4) + counter // Q * (4 * Q) + counter % Q
    scale = tl.load(sigma + row * sigma_stride)
    if scale > 0:
        noise0, noise1, noise2, noise3 = four_normals(
            tl.load(seed + row * seed_stride),
            tl.load(index + row * index_stride),
            tl.load(transition + row * transition_stride),
            counter,
            STREAM,
        )
        _move(z, out, place, mask, scale, noise0)
        _move(z, out, place + Q, mask, scale, noise1)
        _move(z, out, place + 2 * Q, mask, scale, noise2)
        _move(z, out, place + 3 * Q, mask, scale, noise3)
    else:
        tl.store(out + place, tl.load(z + place, mask), mask)
        tl.store(out + place + Q, tl.load(z + place + Q, mask), mask)
        tl.store(out + place + 2 * Q, tl.load(z + place + 2 * Q, mask), mask)
        tl.store(out + place + 3 * Q, tl.load(z + place + 3 * Q, mask), mask)


def perturb(z: Tensor, key: NoiseKey, sigma: Tensor, *, stream: int) -> Tensor:
    """As kernels.perturbation.perturb."""
    z = z.contiguous()
    out = torch.empty_like(z)
    rows, length, dim = z.shape
    counters = length * dim // 4
    keys = (key.seed, key.index, key.transition, sigma)
    _kernel[(rows, triton.cdiv(counters, COUNTERS))](
        z, out, *keys, *(part.stride(0) for part in keys), counters, dim // 4, stream, BLOCK=COUNTERS
    )
    return out
