"""kernels/readout.py in Triton: one launch, a program for each row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.gpu.interpreter import dot_operand
from gram.kernels.readout import Readout

BLOCK_P, BLOCK_D = 64, 64
"""Positions and channels of a tile."""


@triton.jit
def _kernel(
    h,
    low,
    heads_weight,
    heads_bias,
    decoder_weight,
    steps,
    max_steps,
    halt_threshold,
    numbers,
    answers,
    steps_stride,
    max_steps_stride,
    halt_threshold_stride,
    L: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    REGISTERS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    row = tl.program_id(0)
    h += row * L * D
    low += row * L * D
    symbol = tl.arange(0, BLOCK_V)[None, :]
    total = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    halt = tl.zeros((BLOCK_D,), tl.float32)
    value = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, L, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        logits = tl.zeros((BLOCK_P, BLOCK_V), tl.float32)
        for first in range(0, D, BLOCK_D):
            channel = first + tl.arange(0, BLOCK_D)
            place = position[:, None] * D + channel[None, :]
            mask = (position[:, None] < L) & (channel[None, :] < D)
            tile = tl.load(h + place, mask, 0.0)
            total += tile.to(tl.float32) + tl.load(low + place, mask, 0.0).to(tl.float32)
            weight = tl.load(decoder_weight + symbol * D + channel[:, None], (symbol < V) & (channel[:, None] < D), 0.0)
            logits = tl.dot(tile, weight, logits, input_precision="ieee")
        answer = tl.argmax(tl.where(symbol < V, logits, float("-inf")), 1)
        place = answers + row * (L - REGISTERS) + position - REGISTERS
        tl.store(place, answer.to(tl.uint8), (position >= REGISTERS) & (position < L))
    for first in range(0, D, BLOCK_D):
        channel = first + tl.arange(0, BLOCK_D)
        register = tl.load(h + channel, channel < D, 0.0).to(tl.float32)
        halt += register * tl.load(heads_weight + channel, channel < D, 0.0)
        value += register * tl.load(heads_weight + D + channel, channel < D, 0.0)
    halt_probability = tl.sigmoid(tl.sum(halt, 0) + tl.load(heads_bias))
    score = tl.sigmoid(tl.sum(value, 0) + tl.load(heads_bias + 1))
    finite = tl.abs(tl.sum(tl.sum(total, 1), 0)) < float("inf")  # a sum is finite only if all its terms are
    made_all = tl.load(steps + row * steps_stride) >= tl.load(max_steps + row * max_steps_stride)
    halts = halt_probability > tl.load(halt_threshold + row * halt_threshold_stride)
    tl.store(numbers + row * 4, halt_probability)
    tl.store(numbers + row * 4 + 1, score)
    tl.store(numbers + row * 4 + 2, tl.where(finite, 1.0, 0.0))
    tl.store(numbers + row * 4 + 3, tl.where(halts, 2.0, tl.where(finite & ~made_all, 0.0, 1.0)))


def readout(
    h: Tensor,
    low: Tensor,
    heads_weight: Tensor,
    heads_bias: Tensor,
    decoder_weight: Tensor,
    steps: Tensor,
    max_steps: Tensor,
    halt_threshold: Tensor,
    *,
    num_registers: int,
) -> Readout:
    """As kernels.readout.readout."""
    h, low = dot_operand(h), low.contiguous()
    rows, length, dim = h.shape
    symbols = len(decoder_weight)
    numbers = torch.empty(rows, 4, device=h.device)
    answers = torch.empty(rows, length - num_registers, dtype=torch.uint8, device=h.device)
    _kernel[(rows,)](
        h,
        low,
        heads_weight.float().contiguous(),
        heads_bias.float().contiguous(),
        decoder_weight.to(h.dtype).contiguous(),
        steps,
        max_steps,
        halt_threshold,
        numbers,
        answers,
        steps.stride(0),
        max_steps.stride(0),
        halt_threshold.stride(0),
        length,
        dim,
        symbols,
        num_registers,
        BLOCK_P=BLOCK_P,
        BLOCK_D=BLOCK_D,
        BLOCK_V=max(16, triton.next_power_of_2(symbols)),  # tensor cores multiply no narrower matrix
    )
    return Readout(numbers, answers)
