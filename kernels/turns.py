"""Times the sides of a comparison in turns, so that a change of the machine's speed affects all of them alike.

There are seven turns each after a warm-up, or three if those take ten seconds. A turn has as many calls as fill a twentieth of
a second, and ends when the device is done. The median turn counts; for ceilings and shares of them the best one does.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

_TURNS = 7
_LEAST_TURNS = 3
_ENOUGH_SECONDS = 10.0
_TURN_SECONDS = 0.05


def seconds(sides: Sequence[Callable[[int], object]], device: torch.device) -> list[float]:
    """Time each side: the seconds of a call, in the median turn. A side is called with the number of the call."""
    return [statistics.median(times) for times in each_turn(sides, device)]


def each_turn(sides: Sequence[Callable[[int], object]], device: torch.device) -> list[list[float]]:
    """Time each side: the seconds of a call in each of its turns."""
    calls = [_calls(side, device) for side in sides]
    taken: list[list[float]] = [[] for _ in sides]
    begin = time.perf_counter()
    for turn in range(_TURNS):
        if turn >= _LEAST_TURNS and time.perf_counter() - begin > _ENOUGH_SECONDS:
            break
        for side, count, times in zip(sides, calls, taken, strict=True):
            times.append(_turn(side, count, device) / count)
    return taken


def _calls(side: Callable[[int], object], device: torch.device) -> int:
    """The number of calls that fill a turn; finding it is the warm-up."""
    once = _turn(side, 1, device)
    for _ in range(2):
        if once > _TURN_SECONDS:
            return 1
        once = _turn(side, 3, device) / 3
    return max(1, math.ceil(_TURN_SECONDS / once))


def _turn(side: Callable[[int], object], calls: int, device: torch.device) -> float:
    begin = time.perf_counter()
    for call in range(calls):
        side(call)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
