"""Noise on a latent before each supervision step, as in PTRM (arXiv:2605.19943), with which any checkpoint is sampled."""

from dataclasses import dataclass
from typing import Literal

Latent = Literal["low", "high"]
"""l, the fast latent, which TRM's paper calls z; or h, the slow one, from which answers are read."""


@dataclass(frozen=True)
class Perturbation:
    """Add normals with the standard deviation `sigma` to a latent, at every position, before each supervision step."""

    sigma: float
    latent: Latent

    @property
    def sigmas(self) -> tuple[float, float]:
        """The standard deviations for h and for l."""
        return (self.sigma, 0.0) if self.latent == "high" else (0.0, self.sigma)
