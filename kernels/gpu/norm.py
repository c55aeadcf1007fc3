"""kernels/norm.py in Triton: one pass over memory, or, over positions, two."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.norm import EPS

BLOCK_L, BLOCK_D = 64, 32
"""Positions and channels of a tile of the norm over positions."""


@triton.jit
def _kernel(x, residual, y, rows, eps, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    channel = tl.arange(0, BLOCK_D)[None, :]
    place, mask = row * D + channel, (row < rows) & (channel < D)
    total = tl.load(x + place, mask, 0.0).to(tl.float32) + tl.load(residual + place, mask, 0.0).to(tl.float32)
    mean_square = tl.sum(total * total, 1, keep_dims=True) / D
    tl.store(y + place, (total * tl.rsqrt(mean_square + eps)).to(y.dtype.element_ty), mask)


@triton.jit
def _over_positions(x, residual, y, eps, L: tl.constexpr, D: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr):
    start = tl.program_id(0) * L * D
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    squares = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for first in range(0, L, BLOCK_L):
        position = first + tl.arange(0, BLOCK_L)[:, None]
        place, mask = start + position * D + channel, (position < L) & (channel < D)
        total = tl.load(x + place, mask, 0.0).to(tl.float32) + tl.load(residual + place, mask, 0.0).to(tl.float32)
        squares += total * total
    scale = tl.rsqrt(tl.sum(squares, 0, keep_dims=True) / L + eps)
    for first in range(0, L, BLOCK_L):
        position = first + tl.arange(0, BLOCK_L)[:, None]
        place, mask = start + position * D + channel, (position < L) & (channel < D)
        total = tl.load(x + place, mask, 0.0).to(tl.float32) + tl.load(residual + place, mask, 0.0).to(tl.float32)
        tl.store(y + place, (total * scale).to(y.dtype.element_ty), mask)


def add_rms_norm(x: Tensor, residual: Tensor) -> Tensor:
    """As kernels.norm.add_rms_norm."""
    x, residual = x.contiguous(), residual.contiguous()
    y, dim = torch.empty_like(x), x.shape[-1]
    rows, block_d = x.numel() // dim, triton.next_power_of_2(dim)
    block_m = max(1, 2048 // block_d)
    _kernel[(triton.cdiv(rows, block_m),)](x, residual, y, rows, EPS, dim, BLOCK_M=block_m, BLOCK_D=block_d)
    return y


def add_rms_norm_over_positions(x: Tensor, residual: Tensor) -> Tensor:
    """As kernels.norm.add_rms_norm_over_positions."""
    x, residual = x.contiguous(), residual.contiguous()
    y = torch.empty_like(x)
    rows, length, dim = x.shape
    grid = (rows, triton.cdiv(dim, BLOCK_D))
    _over_positions[grid](x, residual, y, EPS, length, dim, BLOCK_L=BLOCK_L, BLOCK_D=BLOCK_D)
    return y
