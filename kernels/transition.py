"""The stochastic transition: h = u + mu + temperature * sigma * noise (Sec. 2.1, the sampled half of a transition)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gram.kernels.noise import NoiseKey, standard_normal


class Transition(NamedTuple):
    """h [B, L, D], and whether all numbers of each row are finite, bool [B]."""

    h: Tensor
    finite: Tensor


def stochastic_transition(u: Tensor, mean: Tensor, log_sigma: Tensor, key: NoiseKey) -> Tensor:
    """Sample h ~ N(u + mean, (temperature * exp(log_sigma))^2 I), in float32, and cast to u's dtype.

    u, mean, log_sigma: [B, L, D]. key: the rows' NoiseKey [B].
    """
    noise = standard_normal(key.seed, key.index, key.transition, *u.shape[1:])
    scale = key.temperature[:, None, None] * log_sigma.float().exp()
    return (u.float() + mean.float() + scale * noise).to(u.dtype)


def gaussian(
    hidden_mean: Tensor | None,
    hidden_log_sigma: Tensor,
    weight_mean: Tensor | None,
    weight_log_sigma: Tensor,
    bias: Tensor,
    *,
    log_sigma_min: float,
    log_sigma_max: float,
) -> tuple[Tensor, Tensor]:
    """The last layers of the guidance heads: mu = hidden_mean W_mu^T, or 0 if both are None, and
    log sigma = clamp(hidden_log_sigma W_sigma^T + bias, min, max).

    hidden_mean, hidden_log_sigma: [B, L, H], of one dtype. weight_mean, weight_log_sigma: [D, H]. bias: [D].
    Returns mu and log sigma, both [B, L, D].
    """
    log_sigma = F.linear(hidden_log_sigma, weight_log_sigma.to(hidden_log_sigma.dtype)) + bias.to(hidden_log_sigma.dtype)
    log_sigma = log_sigma.clamp(log_sigma_min, log_sigma_max)
    if hidden_mean is None or weight_mean is None:
        return torch.zeros_like(log_sigma), log_sigma
    return F.linear(hidden_mean, weight_mean.to(hidden_mean.dtype)), log_sigma


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
    """The last layers of the guidance heads, and then the stochastic transition (Sec. 2.1).

    With mu and log sigma from `gaussian`, h ~ N(u + mu, (temperature * sigma)^2 I), cast to u's dtype.

    u: [B, L, D]. hidden_mean, hidden_log_sigma: [B, L, H], of one dtype. weight_mean, weight_log_sigma: [D, H].
    bias: [D]. key: the rows' NoiseKey [B].
    """
    mean, log_sigma = gaussian(
        hidden_mean,
        hidden_log_sigma,
        weight_mean,
        weight_log_sigma,
        bias,
        log_sigma_min=log_sigma_min,
        log_sigma_max=log_sigma_max,
    )
    h = stochastic_transition(u, mean, log_sigma, key)
    return Transition(h, h.sum((1, 2), dtype=torch.float32).isfinite())  # a sum is finite only if all its terms are
