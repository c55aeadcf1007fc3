"""How to sample and rank: the options of a request, by whatever way it comes."""

import secrets
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from gram.models.perturbation import Latent, Perturbation
from gram.models.tasks import Task, Tokens
from gram.models.temperature import MAX_SCHEDULE, schedule
from gram.server.engine.messages import NEVER_HALT, Submit
from gram.server.engine.pruning import Prune
from gram.server.sampling.collector import Select

Score = Annotated[float, Field(ge=0, le=1)]

WATCHED = 256
"""The number of trajectories of a request, the first ones, that are shown on their way."""


def chosen(seed: int | None) -> int:
    """The seed, or a random one of 53 bits, which survives the JSON parser of any language."""
    return secrets.randbits(53) if seed is None else seed


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


Heat = Annotated[float, Field(ge=0, le=10), BeforeValidator(_no_boolean)]
Heats = Annotated[
    Annotated[Heat, Tag("<number>")] | Annotated[list[Heat], Field(min_length=1, max_length=MAX_SCHEDULE), Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list | tuple) else "<number>"),
]
"""A temperature, or a schedule of them. The tags limit an error message to the kind that was meant."""


class Pruning(BaseModel):
    """At each checkpoint step, end the trajectories that rank below the best share of those with an index up to theirs."""

    model_config = ConfigDict(extra="forbid")

    keep: float = Field(0.5, gt=0, lt=1, description="the share of the trajectories that goes on, rounded up")
    steps: tuple[Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)], ...] = Field(
        (2, 4, 8), min_length=1, max_length=8, description="the checkpoint steps; steps from max_steps on have no effect"
    )

    @field_validator("steps")
    @classmethod
    def _ascend(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not all(step < following for step, following in pairwise(steps)):
            raise ValueError("write each step once, in ascending order")
        return steps


class Guidance(BaseModel):
    """How the reward model steers the sampling."""

    model_config = ConfigDict(extra="forbid")

    prune: Pruning = Field(description="when to end trajectories, and how many go on")


class LatentNoise(BaseModel):
    """Normals that are added to a latent at every position before each supervision step, as PTRM does (arXiv:2605.19943)."""

    model_config = ConfigDict(extra="forbid")

    sigma: float = Field(0.3, gt=0, le=10, description="their standard deviation")
    latent: Latent = Field("low", description="the latent that gets them: low, the fast one (z_L), or high, the slow one (z_H)")


Threshold = Annotated[float, Field(gt=0, lt=1)]
Halt = Literal["auto", "never"] | Threshold
Noise = Literal["learned", "none"] | LatentNoise


class Options(BaseModel):
    """How to sample trajectories, and how to rank their answers."""

    model_config = ConfigDict(extra="forbid")

    num_trajectories: int = Field(20, ge=1, description="K, the number of trajectories to sample")
    max_steps: int = Field(16, ge=1, description="the supervision steps after which a trajectory ends if it has not halted")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="the same seed gives the same answer, whatever the load; chosen at random and returned if absent",
    )
    temperature: Heats = Field(
        1.0,
        description="scales sigma; above 1, trajectories find more of the solutions but are less often valid. A list has a "
        "temperature for each supervision step, and its last one holds for later steps; no trajectory halts before its end",
    )
    noise: Noise = Field(
        "learned",
        description="what makes trajectories differ: the model's own noise, if it has learned one (learned); nothing but "
        "symmetries (none); or noise on a latent before each step, which makes a sampler of any model",
    )
    halt: Halt = Field(
        "auto",
        description="when a trajectory halts: when its halt probability exceeds the model's own threshold (auto), or this "
        "number; or never, so that it makes all max_steps",
    )
    symmetries: bool = Field(
        True,
        description="show each trajectory another image of the puzzle under the task's symmetries, and turn its answer back: "
        "what the model prefers, and where it fails, differs between images; false: all trajectories see the puzzle as it is",
    )
    select: Select = Field(
        "checked",
        description="rank what the exact checker finds valid first, and then by the reward model's score (checked); by that "
        "score alone (lprm), which is the same if the task has no checker; or by votes (majority)",
    )
    stop: Literal["all", "first_valid"] | Score = Field(
        "all",
        description="run all trajectories, or stop at the lowest-numbered one that the checker finds valid, or whose score "
        "reaches this number",
    )
    top: int | None = Field(None, ge=1, description="return only the best candidates, this many (default: all)")
    guidance: Literal["none"] | Guidance = Field(
        "none", description="end trajectories that the reward model ranks low at a step, and give their slots to waiting ones"
    )

    @model_validator(mode="after")
    def _temperature_scales_something(self) -> Self:
        if self.noise != "learned" and self.temperature != 1:
            raise ValueError("temperature scales the learned noise; leave it out, or leave out noise")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if (steps := len(schedule(self.temperature))) > self.max_steps:
            raise ValueError(f"temperature lists {steps} steps, above max_steps {self.max_steps}; raise it or list fewer")
        return self

    @property
    def _halt_threshold(self) -> float | None:
        match self.halt:
            case "auto":
                return None
            case "never":
                return NEVER_HALT
        return self.halt

    def refusal(self, task: Task) -> str | None:
        """Why these options can't be asked of a task; None if they can."""
        if self.stop == "first_valid" and not task.checked:
            return f"{task.name} has no checker that could stop at a valid answer; stop at a score, or leave it out"
        return None

    def chosen_seed(self) -> int:
        """The seed, or a random one."""
        return chosen(self.seed)

    def submit(
        self, number: int, model: str, puzzle: Tokens, seed: int, *, watch: bool = False, background: bool = False
    ) -> Submit:
        """The message that submits a request with these options.

        `watch`: report trajectories on their way, too. `background`: other requests go first.
        """
        return Submit(
            request=number,
            model=model,
            puzzle=puzzle.astype(np.uint8).tobytes(),
            num_trajectories=self.num_trajectories,
            max_steps=self.max_steps,
            seed=seed,
            temperature=self.temperature if self.noise == "learned" else 0.0,
            symmetries=self.symmetries,
            prune=None if self.guidance == "none" else Prune(self.guidance.prune.keep, self.guidance.prune.steps),
            halt_threshold=self._halt_threshold,
            perturbation=Perturbation(**dict(self.noise)) if isinstance(self.noise, LatentNoise) else None,
            watch=WATCHED if watch else 0,
            background=background,
        )


class GenerateOptions(Options):
    """How to sample boards: the options of a solve, with another name for the number of trajectories."""

    num_trajectories: int = Field(20, ge=1, alias="num_samples", description="the number of boards to sample")
