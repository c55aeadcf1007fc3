"""The stochastic transition: h = u + mu + temperature * sigma * noise (Sec. 2.1, the sampled half of a transition)."""

from torch import Tensor

from kernels.noise import standard_normal


def stochastic_transition(
    u: Tensor,
    mean: Tensor,
    log_sigma: Tensor,
    seed: Tensor,
    trajectory: Tensor,
    transition: Tensor,
    temperature: Tensor,
) -> Tensor:
    """Sample h ~ N(u + mean, (temperature * exp(log_sigma))^2 I), in float32, and cast to u's dtype.

    u, mean, log_sigma: [B, L, D]. seed, trajectory, transition: int64 [B], the counter of the noise.
    temperature: float32 [B].
    """
    noise = standard_normal(seed, trajectory, transition, *u.shape[1:])
    scale = temperature[:, None, None] * log_sigma.float().exp()
    return (u.float() + mean.float() + scale * noise).to(u.dtype)
