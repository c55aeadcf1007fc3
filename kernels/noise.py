"""Counter-based standard normals: a pure function of (seed, trajectory, transition, element).

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), then Box-Muller. The key is
the request's seed; the counter is (element // 4, transition, trajectory, 0). Nothing about the slot, the batch or
the load enters, which is what makes an answer reproducible.
"""

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Philox 4x32-10: four counter words and two key words to four random words.

    Words are unsigned 32-bit values held in int64 tensors, broadcast against one another.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for round_ in range(_ROUNDS):
        if round_:
            k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
        # The product of two 32-bit words may wrap past the sign bit; the masks make both halves right again.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
    return [c0, c1, c2, c3]


def standard_normal(seed: Tensor, trajectory: Tensor, transition: Tensor, elements: int) -> Tensor:
    """Normals [B, elements], float32; seed, trajectory, transition are int64 [B] (seed: all 64 bits are used)."""
    blocks = -(-elements // 4)
    block = torch.arange(blocks, device=seed.device)[None]
    counter = (block, transition[:, None], trajectory[:, None] & _MASK, torch.zeros_like(seed)[:, None])
    words = philox(counter, (seed[:, None] & _MASK, seed[:, None] >> 32 & _MASK))
    # 24 bits each: exact in float32; the half step keeps the uniform off 0, where the logarithm ends.
    uniform = [((word >> 8).float() + 0.5) * 2.0**-24 for word in words]
    normals = []
    for first, second in (uniform[:2], uniform[2:]):
        radius, angle = (-2.0 * first.log()).sqrt(), second * (2.0 * math.pi)
        normals += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(normals, dim=-1).flatten(1)[:, :elements]
