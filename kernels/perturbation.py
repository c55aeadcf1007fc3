"""Noise on a latent before a supervision step, which makes a deterministic model, such as a trained TRM, a sampler.

Source: PTRM, arXiv:2605.19943.
"""

import torch
from torch import Tensor

from gram.kernels.noise import NoiseKey, standard_normal


def perturb(z: Tensor, key: NoiseKey, sigma: Tensor, *, stream: int) -> Tensor:
    """z + sigma * noise, in float32, and cast to z's dtype; rows whose sigma is 0 stay as they are.

    z: [B, L, D], one of the two latents. key: the rows' NoiseKey [B], of the step that follows. sigma: float32 [B]. stream: the
    latent's stream of noise (see kernels.noise).
    """
    _, length, dim = z.shape
    noise = standard_normal(key.seed, key.index, key.transition, length, dim, stream)
    scale = sigma[:, None, None]
    return torch.where(scale > 0, (z.float() + scale * noise).to(z.dtype), z)
