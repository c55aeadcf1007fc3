"""A supervision step of one row in one program: models/network.py's perturb and supervision_step, fused.

A row's activations stay on the chip from the beginning of a core's application to its end, each product ends with what follows
it, and the noise is made where it is added. Between two applications h and l lie in memory that the program alone reads and
writes, [L, D] each, which the caches keep: beside the sums of a SwiGLU they do not fit into the registers, and Triton offers
no shared memory. The weights come from the L2 cache, once for every application. Rows share nothing, so a row's bits depend on
the row alone.

Triton wants powers of two, so positions are padded to one, and hidden widths to whole chunks. The padding is zero and stays so.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.gpu.layout import PackedModel, constants, options
from gram.kernels.gpu.noise import four_normals
from gram.kernels.noise import NoiseKey
from gram.kernels.norm import EPS


@triton.jit
def _dot(a, b, total, OPERAND: tl.constexpr):
    return tl.dot(a.to(OPERAND), b.to(OPERAND), total, input_precision="ieee")  # full float32, as in PyTorch, and not TF32


@triton.jit
def _rows(weight, first, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of a weight [.., WIDTH]."""
    return tl.load(weight + (first + tl.arange(0, ROWS))[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :])


@triton.jit
def _columns(weight, first, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The same rows, transposed."""
    return tl.load(weight + (first + tl.arange(0, ROWS))[None, :] * WIDTH + tl.arange(0, WIDTH)[:, None])


@triton.jit
def _swiglu(x, weight, H: tl.constexpr, M: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr, OPERAND: tl.constexpr):
    """A SwiGLU over the last axis: x [M, WIDTH] -> float32 [M, WIDTH]. weight: [3, H, WIDTH]."""
    total = tl.zeros((M, WIDTH), tl.float32)
    for unit in range(0, H, CHUNK):
        gate = _dot(x, _columns(weight, unit, CHUNK, WIDTH), tl.zeros((M, CHUNK), tl.float32), OPERAND)
        up = _dot(x, _columns(weight, H + unit, CHUNK, WIDTH), tl.zeros((M, CHUNK), tl.float32), OPERAND)
        hidden = (gate * tl.sigmoid(gate) * up).to(x.dtype)
        total = _dot(hidden, _rows(weight, 2 * H + unit, CHUNK, WIDTH), total, OPERAND)
    return total


@triton.jit
def _rotated(x, weight, cos, sin, first, P: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, OPERAND: tl.constexpr):
    """A head's queries or keys, rotated: their first and their second halves [P, HALF]."""
    nothing = tl.zeros((P, HALF), tl.float32)
    a = _dot(x, _columns(weight, first, HALF, D), nothing, OPERAND)
    b = _dot(x, _columns(weight, first + HALF, HALF, D), nothing, OPERAND)
    return (a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype)


@triton.jit
def _attention(
    x,
    weight,
    cos_table,
    sin_table,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    length,
    P: tl.constexpr,
    D: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Self-attention with RoPE: x [P, D] -> float32 [P, D]."""
    total = tl.zeros((P, D), tl.float32)
    cos, sin = _rows(cos_table, 0, P, HALF), _rows(sin_table, 0, P, HALF)
    position = tl.arange(0, P)
    for head in range(HEADS):
        first = head * 8 * HALF
        query1, query2 = _rotated(x, weight, cos, sin, first, P, D, HALF, OPERAND)
        key1, key2 = _rotated(x, weight, cos, sin, first + 2 * HALF, P, D, HALF, OPERAND)
        value = _dot(x, _columns(weight, first + 4 * HALF, 2 * HALF, D), tl.zeros((P, 2 * HALF), tl.float32), OPERAND)
        scores = _dot(query1, tl.trans(key1), tl.zeros((P, P), tl.float32), OPERAND)
        scores = _dot(query2, tl.trans(key2), scores, OPERAND) * (HEAD_DIM**-0.5)
        scores = tl.where(position[None, :] < length, scores, float("-inf"))
        share = tl.exp(scores - tl.max(scores, 1, keep_dims=True))
        mixed = _dot(share.to(x.dtype), value.to(x.dtype), tl.zeros((P, 2 * HALF), tl.float32), OPERAND)
        mixed = (mixed / tl.sum(share, 1, keep_dims=True)).to(x.dtype)
        total = _dot(mixed, _rows(weight, first + 6 * HALF, 2 * HALF, D), total, OPERAND)
    return tl.where(position[:, None] < length, total, 0.0)


@triton.jit
def _add_and_norm(x, sums, eps, AXIS: tl.constexpr, COUNT):
    """norm(x + sums) over an axis, of which COUNT are not padding."""
    total = x.to(tl.float32) + sums
    mean_square = tl.sum(total * total, AXIS, keep_dims=True) / COUNT
    return (total * tl.rsqrt(mean_square + eps)).to(x.dtype)


@triton.jit
def _noise(seed, index, transition, STREAM: tl.constexpr, length, P: tl.constexpr, D: tl.constexpr):
    """The normals of a row's transition [P, D], zero in the padding: kernels/noise.py."""
    position = tl.arange(0, P)[:, None]
    counter = position * (D // 4) + tl.arange(0, D // 4)[None, :]
    cos01, cos23, sin01, sin23 = four_normals(seed, index, transition, counter, STREAM)
    noise = tl.join(tl.join(cos01, sin01), tl.join(cos23, sin23))  # [position, i, cos or sin, pair]
    noise = tl.reshape(tl.permute(noise, (0, 2, 3, 1)), (P, D))
    return tl.where(position < length, noise, 0.0)


@triton.jit
def _perturb(
    z,
    out,
    valid,
    sigma,
    seed,
    index,
    transition,
    STREAM: tl.constexpr,
    length,
    P: tl.constexpr,
    D: tl.constexpr,
):
    """Copy a latent, with noise if sigma is not 0: kernels/perturbation.py."""
    latent = tl.load(z, valid, 0.0)
    if sigma > 0:
        latent = (latent.to(tl.float32) + sigma * _noise(seed, index, transition, STREAM, length, P, D)).to(latent.dtype)
    tl.store(out, latent, valid)


@triton.jit(do_not_specialize=["length"])  # so that networks of the same widths share a compilation
def _kernel(
    h,
    low,
    e_x,
    next_h,
    next_low,
    seed,
    index,
    transition,
    temperature,
    sigmas,
    seed_stride,
    index_stride,
    transition_stride,
    temperature_stride,
    sigmas_stride,
    cores,
    prior,
    bias,
    cos,
    sin,
    eps,
    log_sigma_min,
    log_sigma_max,
    length,
    D: tl.constexpr,
    P: tl.constexpr,
    MIXER: tl.constexpr,
    MLP: tl.constexpr,
    GUIDANCE: tl.constexpr,
    LAYERS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    LOW_STEPS: tl.constexpr,
    TRANSITIONS: tl.constexpr,
    ATTENTION: tl.constexpr,
    OVER_POSITIONS: tl.constexpr,
    SHARED: tl.constexpr,
    FLAT: tl.constexpr,
    GUIDED: tl.constexpr,
    LEARNED_MEAN: tl.constexpr,
    HIGH_STREAM: tl.constexpr,
    LOW_STREAM: tl.constexpr,
    GUIDANCE_STREAM: tl.constexpr,
    CHUNK: tl.constexpr,
    OPERAND: tl.constexpr,
):
    MIXING: tl.constexpr = HEADS * 8 * HALF * D if ATTENTION else 3 * MIXER * P
    LAYER: tl.constexpr = MIXING + 3 * MLP * D
    row = tl.program_id(0)
    position = tl.arange(0, P)[:, None]
    place, valid = position * D + tl.arange(0, D)[None, :], position < length
    start = row.to(tl.int64) * (length * D)
    e_x += start
    seed, index = tl.load(seed + row * seed_stride), tl.load(index + row * index_stride)
    transition = tl.load(transition + row * transition_stride)
    heat = tl.load(temperature + row * temperature_stride)
    sigma = sigmas + row * sigmas_stride
    next_h += start
    next_low += start
    _perturb(h + start + place, next_h + place, valid, tl.load(sigma), seed, index, transition, HIGH_STREAM, length, P, D)
    _perturb(
        low + start + place, next_low + place, valid, tl.load(sigma + 1), seed, index, transition, LOW_STREAM, length, P, D
    )
    h, low = next_h, next_low
    tl.debug_barrier()
    for t in range(TRANSITIONS):
        for k in range(LOW_STEPS + 1):
            last = k == LOW_STEPS
            total = tl.load(h + place, valid, 0.0).to(tl.float32)
            if not FLAT:
                total += tl.load(low + place, valid, 0.0).to(tl.float32)
            total += tl.load(e_x + place, valid & (FLAT or not last), 0.0).to(tl.float32)
            x, weight = total.to(h.dtype.element_ty), cores
            if not SHARED:
                weight += tl.where(last, LAYERS * LAYER, 0)
            for _ in range(LAYERS):
                if ATTENTION:
                    mixed = _attention(x, weight, cos, sin, HEADS, HEAD_DIM, HALF, length, P, D, OPERAND)
                    x = _add_and_norm(x, mixed, eps, 0, length) if OVER_POSITIONS else _add_and_norm(x, mixed, eps, 1, D)
                else:
                    x = tl.trans(x)
                    mixed = _swiglu(x, weight, MIXER, D, P, CHUNK, OPERAND)
                    x = _add_and_norm(x, mixed, eps, 1, length) if OVER_POSITIONS else _add_and_norm(x, mixed, eps, 0, D)
                    x = tl.trans(x)
                x = _add_and_norm(x, _swiglu(x, weight + MIXING, MLP, P, D, CHUNK, OPERAND), eps, 1, D)
                weight += LAYER
            if FLAT or last:  # u = f_high(h + l), after l = f_low(l + h + e_x); a flat network's h = f(h + e_x)
                tl.store(h + place, x, valid)
            else:
                tl.store(low + place, x, valid)
            tl.debug_barrier()
        if GUIDED:
            u = tl.load(h + place, valid, 0.0)
            log_sigma = _swiglu(u, prior, GUIDANCE, P, D, CHUNK, OPERAND) + tl.load(bias + tl.arange(0, D))[None, :]
            log_sigma = tl.clamp(log_sigma, log_sigma_min, log_sigma_max, tl.PropagateNan.ALL)
            sample = heat * tl.exp(log_sigma) * _noise(seed, index, transition + t, GUIDANCE_STREAM, length, P, D)
            if LEARNED_MEAN:
                sample += _swiglu(u, prior + 3 * GUIDANCE * D, GUIDANCE, P, D, CHUNK, OPERAND)
            tl.store(h + place, (u.to(tl.float32) + sample).to(u.dtype), valid)
            tl.debug_barrier()


def step(model: PackedModel, h: Tensor, low: Tensor, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """The state after a step. h, low, e_x: [B, L, D], of the weights' dtype. key: NoiseKey [B]. sigmas: float32 [B, 2]."""
    h, low, e_x = h.contiguous(), low.contiguous(), e_x.contiguous()
    next_h, next_low = torch.empty_like(h), torch.empty_like(low)
    _kernel[(len(h),)](
        h,
        low,
        e_x,
        next_h,
        next_low,
        *key.parts,
        sigmas,
        *(part.stride(0) for part in (*key.parts, sigmas)),
        model.cores,
        model.prior,
        model.bias,
        model.cos,
        model.sin,
        EPS,
        model.log_sigma_min,
        model.log_sigma_max,
        model.length,
        **constants(model, h.dtype),
        **options(model),
    )
    return next_h, next_low
