"""kernels/transition.py in Triton. The noise, and in the guided transition mu and log sigma, never reach memory.

Both kernels see the positions of all rows as one axis, m = row * L + position, so that no program is half empty at the end of a
row. They take channels by the counter, which channels i, i + D/4, i + D/2 and i + 3D/4 share.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.gpu.interpreter import dot_operand
from gram.kernels.gpu.noise import four_normals
from gram.kernels.noise import GUIDANCE_STREAM, NoiseKey
from gram.kernels.transition import Transition

COUNTERS = 512
"""Counters per program of the transition that only samples."""

BLOCK_M, BLOCK_Q, BLOCK_H = 64, 16, 64
"""The guided transition's tile: positions, counters (each makes the noise of four channels), hidden channels per product."""


@triton.jit
def _gaussian(u, mean, log_sigma, place, mask, temperature):
    loc = tl.load(u + place, mask).to(tl.float32) + tl.load(mean + place, mask).to(tl.float32)
    return loc, temperature * tl.exp(tl.load(log_sigma + place, mask).to(tl.float32))


@triton.jit
def _sample(
    u,
    mean,
    log_sigma,
    h,
    seed,
    index,
    transition,
    temperature,
    seed_stride,
    index_stride,
    transition_stride,
    temperature_stride,
    positions,
    L: tl.constexpr,
    Q: tl.constexpr,
    STREAM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    i = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)[None, :]
    row, valid = m // L, m < positions
    heat = tl.load(temperature + row * temperature_stride, valid, 0.0)
    place, mask = m * (4 * Q) + i, valid & (i < Q)
    # The loads are issued first, so that memory works while the noise is computed.
    loc0, scale0 = _gaussian(u, mean, log_sigma, place, mask, heat)
    loc1, scale1 = _gaussian(u, mean, log_sigma, place + Q, mask, heat)
    loc2, scale2 = _gaussian(u, mean, log_sigma, place + 2 * Q, mask, heat)
    loc3, scale3 = _gaussian(u, mean, log_sigma, place + 3 * Q, mask, heat)
    noise0, noise1, noise2, noise3 = four_normals(
        tl.load(seed + row * seed_stride, valid, 0),
        tl.load(index + row * index_stride, valid, 0),
        tl.load(transition + row * transition_stride, valid, 0),
        m % L * Q + i,
        STREAM,
    )
    tl.store(h + place, (loc0 + scale0 * noise0).to(h.dtype.element_ty), mask)
    tl.store(h + place + Q, (loc1 + scale1 * noise1).to(h.dtype.element_ty), mask)
    tl.store(h + place + 2 * Q, (loc2 + scale2 * noise2).to(h.dtype.element_ty), mask)
    tl.store(h + place + 3 * Q, (loc3 + scale3 * noise3).to(h.dtype.element_ty), mask)


@triton.jit
def _product(hidden, weight, rows, mask_rows, columns, mask_columns, H: tl.constexpr, BLOCK_H: tl.constexpr):
    """The product hidden[rows] weight[columns]^T in float32, of hidden [.., H] and weight [.., H]."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for first in range(0, H, BLOCK_H):
        k = first + tl.arange(0, BLOCK_H)
        a = tl.load(hidden + rows[:, None] * H + k[None, :], mask_rows[:, None] & (k[None, :] < H), 0.0)
        b = tl.load(weight + columns[None, :] * H + k[:, None], mask_columns[None, :] & (k[:, None] < H), 0.0)
        total = tl.dot(a, b, total, input_precision="ieee")  # full float32, as in PyTorch, and not TF32
    return total


@triton.jit
def _guide_and_sample(
    u,
    hidden_mean,
    hidden_log_sigma,
    weight_mean,
    weight_log_sigma,
    bias,
    h,
    finite,
    seed,
    index,
    transition,
    temperature,
    seed_stride,
    index_stride,
    transition_stride,
    temperature_stride,
    log_sigma_min,
    log_sigma_max,
    positions,
    L: tl.constexpr,
    Q: tl.constexpr,
    H: tl.constexpr,
    STREAM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row, valid = m // L, m < positions
    # The tile's columns are four runs of BLOCK_Q channels, one from each quarter.
    column = tl.arange(0, 4 * BLOCK_Q)
    within = tl.program_id(1) * BLOCK_Q + column % BLOCK_Q
    channel, exists = column // BLOCK_Q * Q + within, within < Q

    log_sigma = _product(hidden_log_sigma, weight_log_sigma, m, valid, channel, exists, H, BLOCK_H)
    log_sigma += tl.load(bias + channel, exists, 0.0).to(tl.float32)[None, :]
    log_sigma = tl.clamp(log_sigma, log_sigma_min, log_sigma_max, tl.PropagateNan.ALL)

    i = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    cos01, cos23, sin01, sin23 = four_normals(
        tl.load(seed + row * seed_stride, valid, 0)[:, None],
        tl.load(index + row * index_stride, valid, 0)[:, None],
        tl.load(transition + row * transition_stride, valid, 0)[:, None],
        (m % L * Q)[:, None] + i[None, :],
        STREAM,
    )
    noise = tl.join(tl.join(cos01, sin01), tl.join(cos23, sin23))  # [m, i, cos or sin, pair]
    noise = tl.reshape(tl.permute(noise, (0, 2, 3, 1)), (BLOCK_M, 4 * BLOCK_Q))

    place, mask = m[:, None] * (4 * Q) + channel[None, :], valid[:, None] & exists[None, :]
    heat = tl.load(temperature + row * temperature_stride, valid, 0.0)[:, None]
    sample = tl.load(u + place, mask, 0.0).to(tl.float32) + heat * tl.exp(log_sigma) * noise
    if hidden_mean is not None:
        sample += _product(hidden_mean, weight_mean, m, valid, channel, exists, H, BLOCK_H)
    sample = sample.to(h.dtype.element_ty)
    tl.store(h + place, sample, mask)
    broken = tl.max((mask & ~(tl.abs(sample.to(tl.float32)) < float("inf"))).to(tl.int32), 1)
    tl.store(finite + row, tl.zeros_like(broken).to(tl.int1), broken > 0)  # all programs that store here store the same


def stochastic_transition(u: Tensor, mean: Tensor, log_sigma: Tensor, key: NoiseKey) -> Tensor:
    """As kernels.transition.stochastic_transition."""
    u, mean, log_sigma = u.contiguous(), mean.contiguous(), log_sigma.contiguous()
    h = torch.empty_like(u)
    rows, length, dim = u.shape
    quarter = dim // 4
    block_q = min(triton.next_power_of_2(quarter), 128)
    block_m = COUNTERS // block_q
    _sample[(triton.cdiv(rows * length, block_m), triton.cdiv(quarter, block_q))](
        u,
        mean,
        log_sigma,
        h,
        *key.parts,
        *(part.stride(0) for part in key.parts),
        rows * length,
        length,
        quarter,
        GUIDANCE_STREAM,
        BLOCK_M=block_m,
        BLOCK_Q=block_q,
    )
    return h


def guided_transition(
    u: Tensor,
    hidden_mean: Tensor | None,
    hidden_log_sigma: Tensor,
    weight_mean: Tensor | None,
    weight_log_sigma: Tensor,
    bias: Tensor,
    key: NoiseKey,
    *,
    log_sigma_min: float,
    log_sigma_max: float,
) -> Transition:
    """As kernels.transition.guided_transition."""
    u, hidden_log_sigma = u.contiguous(), dot_operand(hidden_log_sigma)
    if hidden_mean is not None and weight_mean is not None:
        hidden_mean = dot_operand(hidden_mean)
        weight_mean = weight_mean.to(hidden_mean.dtype).contiguous()
    h = torch.empty_like(u)
    rows, length, dim = u.shape
    finite = torch.ones(rows, dtype=torch.bool, device=u.device)
    _guide_and_sample[(triton.cdiv(rows * length, BLOCK_M), triton.cdiv(dim // 4, BLOCK_Q))](
        u,
        hidden_mean,
        hidden_log_sigma,
        weight_mean,
        weight_log_sigma.to(hidden_log_sigma.dtype).contiguous(),
        bias.contiguous(),
        h,
        finite,
        *key.parts,
        *(part.stride(0) for part in key.parts),
        log_sigma_min,
        log_sigma_max,
        rows * length,
        length,
        dim // 4,
        hidden_log_sigma.shape[-1],
        GUIDANCE_STREAM,
        BLOCK_M=BLOCK_M,
        BLOCK_Q=BLOCK_Q,
        BLOCK_H=BLOCK_H,
    )
    return Transition(h, finite)
