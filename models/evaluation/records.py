"""The records of an evaluation, which evaluation.json and curves.json hold: what was measured, under which conditions."""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from gram.models.temperature import Temperature, temperature_text


class Evaluation(BaseModel):
    """Means over puzzles with `samples` trajectories each. Shares are in [0, 1]."""

    model_config = ConfigDict(extra="forbid")

    test_set: str
    puzzles: int
    samples: int
    temperature: Temperature
    max_steps: int
    seed: int
    symmetries: bool
    single: float = Field(description="a single trajectory is valid")
    lprm: float = Field(description="the trajectory that the LPRM scores highest is valid")
    majority: float = Field(description="the most frequent answer is valid")
    any: float = Field(description="at least one trajectory is valid")
    coverage: float | None = Field(
        description="the share of all valid answers that were found; null if no puzzle has few enough to count"
    )
    distinct_valid: float | None = Field(None, description="distinct valid answers to a puzzle; null if not measured")
    conflicts: int = Field(description="broken constraints in the LPRM's choices, summed over the puzzles (colouring: edges)")
    coverage_limit: float | None = Field(
        description="the coverage of as many draws that are uniform over the valid answers; null if coverage is"
    )
    auroc: float | None = Field(
        description="AUROC of the LPRM's score for validity, over all trajectories; null if all are valid or none is"
    )
    mean_steps: float = Field(description="supervision steps to the halt")
    command: str = Field("", description="the command that measures this again")

    @property
    def covers_several(self) -> bool:
        """Whether a puzzle has several solutions that can be counted. Else its coverage is whether any sample is valid."""
        return self.coverage_limit not in (None, 1)

    @property
    def sampling(self) -> str:
        """How the trajectories were sampled, in words."""
        return f"temperature {temperature_text(self.temperature)}" + ("" if self.symmetries else ", no symmetries")

    @property
    def title(self) -> str:
        """The puzzles that were measured, and how their trajectories were sampled."""
        return f"{self.puzzles} {self.test_set}, {self.sampling}"


class Stratum(Evaluation):
    """The evaluation of the puzzles of a test set that lie in one band of a trait, such as the number of clues."""

    trait: str
    band: str


class Generation(BaseModel):
    """Boards generated from the task's empty input, a trajectory each. Shares are in [0, 1], entropies in nats."""

    model_config = ConfigDict(extra="forbid")

    temperature: Temperature
    max_steps: int
    seed: int
    symmetries: bool
    samples: int
    valid: float = Field(description="a single trajectory is a valid board")
    distinct: int = Field(description="different boards among the valid ones")
    reachable: int | None = Field(description="how many valid boards there are; null if they are too many to list")
    total_variation: float | None = Field(
        description="distance of the valid boards from uniform over the reachable ones, in total variation; "
        "null if those are not listed, or no board is valid"
    )
    total_variation_limit: float | None = Field(description="the same on average for as many draws of uniform boards")
    entropy: float | None = Field(
        description="of a cell's symbol among the valid boards, mean over the cells, in nats; null if no board is valid"
    )
    entropy_limit: float = Field(description="the same of uniform boards")
    auroc: float | None = Field(
        description="AUROC of the LPRM's score for validity, over all trajectories; null if all are valid or none is"
    )
    mean_steps: float = Field(description="supervision steps to the halt")
    command: str = Field("", description="the command that measures this again")


class Curves(BaseModel):
    """The evaluation by the number of samples, by the depth, and by traits of the puzzles. curves.json holds it."""

    model_config = ConfigDict(extra="forbid")

    by_samples: list[Evaluation] = Field([], description="of the first K trajectories of each puzzle")
    by_depth: list[Evaluation] = Field([], description="of trajectories that go on to max_steps, whatever the halt head says")
    by_trait: list[Stratum] = []


@dataclass(frozen=True)
class Figures:
    """Everything that is measured of one checkpoint: solving and, if it generates, generating."""

    evaluations: list[Evaluation] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    generations: list[Generation] = field(default_factory=list)

    @property
    def records(self) -> list[Evaluation | Generation]:
        """What evaluation.json holds: all figures but the curves."""
        return [*self.evaluations, *self.generations]
