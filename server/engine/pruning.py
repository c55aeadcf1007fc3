"""Pruning decides by the LPRM's score which trajectories give up their slots.

It is asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", 2018).
"""

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True)
class Prune:
    """The pruning that a request asks for: at each of these steps only the share `keep` of its trajectories goes on."""

    keep: float
    steps: tuple[int, ...]


class Rungs:
    """The scores with which a request's trajectories came to each checkpoint step, in ascending order.

    Scores are added in the order of the trajectories' index, not in the order of arrival as in the paper. So the pruning, like
    the rest of the answer, is a function of the request alone.
    """

    def __init__(self, prune: Prune) -> None:
        self._keep = prune.keep
        self._scores = {step: array("d") for step in prune.steps}

    def passes(self, step: int, score: float) -> bool:
        """Whether the next trajectory to make this step ranks in the best share of those that have made it, itself included.

        Of equal scores the lower index ranks better. The first trajectory always passes, so a request is never pruned whole.
        """
        scores = self._scores.get(step)
        if scores is None:
            return True
        place = bisect_left(scores, score)
        better = len(scores) - place
        scores.insert(place, score)
        return better < math.ceil(self._keep * len(scores))
