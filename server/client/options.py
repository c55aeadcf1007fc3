"""The options of a request as keyword arguments: editors complete them, type checkers check them, the server explains them.

Defaults are the server's: an option that is left out is not sent. docs/api.md says what each one means.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

from gram.models.perturbation import Latent
from gram.server.sampling.collector import Select
from gram.server.sampling.options import Guidance, Halt, Noise
from gram.server.sampling.requests import Priority


class PruningOptions(TypedDict, total=False):
    """How to prune: the share of the trajectories that goes on, and the steps after which the others end."""

    keep: float
    steps: Sequence[int]


class GuidanceOptions(TypedDict):
    """How the reward model steers the sampling."""

    prune: PruningOptions


class LatentNoiseOptions(TypedDict, total=False):
    """Noise on a latent before each step: its standard deviation, and the latent."""

    sigma: float
    latent: Latent


class SamplingOptions(TypedDict, total=False):
    """The options that solving and generating share."""

    max_steps: int
    seed: int | None
    temperature: float | Sequence[float]
    noise: Noise | LatentNoiseOptions
    halt: Halt
    symmetries: bool
    select: Select
    stop: Literal["all", "first_valid", "all_solutions"] | float
    top: int | None
    guidance: Literal["none"] | Guidance | GuidanceOptions
    timeout_seconds: float | None
    priority: Priority


class SolveOptions(SamplingOptions, total=False):
    """The options of POST /v1/solve."""

    num_trajectories: int


class GenerateOptions(SamplingOptions, total=False):
    """The options of POST /v1/generate."""

    num_samples: int
