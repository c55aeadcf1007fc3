"""Counter-based standard normals: a pure function of (seed, index, transition, position, channel) and of what they are for.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), then Box-Muller. The key is the
request's seed; the counter is (position * D/4 + i, transition, index, stream), where index is the trajectory's number in its
request, and each use of noise has a stream of its own. Each counter gives four words w0 .. w3, and so four normals,
cos(w0, w1), cos(w2, w3), sin(w0, w1) and sin(w2, w3), for channels i, i + D/4, i + D/2 and i + 3D/4 of the position. Nothing
about the slot, the batch or the load enters, so an answer can be reproduced.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

GUIDANCE_STREAM, HIGH_STREAM, LOW_STREAM = 0, 1, 2
"""The noise of the stochastic transition, and what a step may begin with, of the high and of the low latent."""


@dataclass(frozen=True)
class NoiseKey:
    """What determines the noise of each of B rows, and how strong it is. All tensors are [B].

    seed: int64, the request's; all 64 bits count. index: int64, the trajectory's number in its request. transition: int64, the
    transitions that the trajectory has made. temperature: float32, the factor of sigma.
    """

    seed: Tensor
    index: Tensor
    transition: Tensor
    temperature: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four tensors, in the order of the fields."""
        return self.seed, self.index, self.transition, self.temperature


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The multipliers [2], and what each round adds to the words of the key [10, 2].

    They are cached because a CUDA graph can't record a copy of numbers from the host.
    """
    weyl = [[round_ * word for word in _WEYL] for round_ in range(_ROUNDS)]
    return torch.tensor(_MULTIPLIERS, device=device), torch.tensor(weyl, device=device)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Philox 4x32-10: four counter words and two key words -> four random words [4, ...].

    Words are unsigned 32-bit values in int64 tensors. The counter's have one shape [...], to which the key's broadcast.
    """
    # The two halves of a round are alike, so they are computed as one: factors are words 0 and 2, others words 1 and 3.
    factors, others = torch.stack([counter[0], counter[2]]), (counter[1], counter[3])
    keys = torch.stack(key)
    multipliers, weyl = (words.view(*words.shape, *(1,) * (keys.ndim - 1)) for words in _constants(keys.device))
    for round_key in (keys + weyl) & _MASK:
        product = factors * multipliers  # may wrap past the sign bit; the mask below makes the high half right again
        high = product >> 32
        torch.bitwise_xor(high[1], others[0], out=factors[0])
        torch.bitwise_xor(high[0], others[1], out=factors[1])
        factors.bitwise_xor_(round_key).bitwise_and_(_MASK)
        others = product[1], product[0]  # only the low halves count; the mask removes the rest
    return torch.stack([factors[0], others[0] & _MASK, factors[1], others[1] & _MASK])


def standard_normal(
    seed: Tensor, index: Tensor, transition: Tensor, length: int, dim: int, stream: int = GUIDANCE_STREAM
) -> Tensor:
    """Standard normals [B, length, dim], float32, of seed, index and transition [B] (see NoiseKey). dim is a multiple of 4."""
    rows, quarter = len(seed), dim // 4
    block = torch.arange(length * quarter, device=seed.device).expand(rows, -1)
    transition, index = transition[:, None].expand_as(block), index[:, None].expand_as(block)
    key = seed[:, None] & _MASK, seed[:, None] >> 32 & _MASK
    words = philox((block, transition, index, torch.full_like(block, stream)), key)
    # 24 bits are exact in float32. The half step, which rounding loses in the upper half, keeps the uniform away from 0, where
    # the logarithm is infinite. At the other end the uniform may be 1, and the normal 0.
    uniform = (words >> 8).float().add_(0.5).mul_(2.0**-24)
    radius, angle = uniform[0::2].log_().mul_(-2.0).sqrt_(), uniform[1::2].mul_(2.0 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()])  # [cos or sin, pair, B, L D / 4]
    return pairs.view(4, rows, length, quarter).permute(1, 2, 0, 3).reshape(rows, length, dim)
