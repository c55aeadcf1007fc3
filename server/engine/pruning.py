"""Which trajectories give up their slots: asynchronous successive halving (ASHA, Li et al. 2018) by the LPRM's value."""

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True)
class Prune:
    """What a request asks for: at each of these steps only the best share of its trajectories goes on."""

    keep: float
    steps: tuple[int, ...]


class Rungs:
    """The values with which a request's trajectories came to each checkpoint step, in ascending order.

    They enter in the order of their index, not of arrival as in ASHA. So what is pruned is a function of the request's
    own values, as everything else in its answer.
    """

    def __init__(self, prune: Prune) -> None:
        self._keep = prune.keep
        self._values = {step: array("d") for step in prune.steps}

    def passes(self, step: int, value: float) -> bool:
        """The next trajectory has made this step: whether it ranks in the top share of those so far, itself included.

        Of equal values the lower index ranks better. The first to come always passes, so a request is never pruned whole.
        """
        values = self._values.get(step)
        if values is None:
            return True
        place = bisect_left(values, value)
        better = len(values) - place
        values.insert(place, value)
        return better < math.ceil(self._keep * len(values))
