"""How much of a request each engine gets, so that it ends as soon as it can."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Load(NamedTuple):
    """What an engine has to do, and how fast it is."""

    seconds: float
    """Until it has done what it has."""
    rate: float
    """Trajectories of the request's model that it ends in a second."""


class Backlog(NamedTuple):
    """What an engine has to do, by model: the trajectories, and how many of them it ends in a second, if that is known."""

    remaining: Mapping[str, int]
    rates: Mapping[str, float | None]


def loads(backlogs: Sequence[Backlog], model: str) -> list[Load]:
    """The engines' loads, as a request of this model meets them.

    Where an engine's rate is not known, it is taken to be as fast as the others, or all to be equally fast.
    """
    usual = {}
    for name in {model}.union(*(backlog.remaining for backlog in backlogs)):
        known = [rate for backlog in backlogs if (rate := backlog.rates.get(name))]
        usual[name] = sum(known) / len(known) if known else 1.0

    def load(backlog: Backlog) -> Load:
        rates = {name: backlog.rates.get(name) or usual[name] for name in {model, *backlog.remaining}}
        return Load(sum(count / rates[name] for name, count in backlog.remaining.items()), rates[model])

    return [load(backlog) for backlog in backlogs]


def divide(count: int, engines: Sequence[Load], least: int) -> list[int]:
    """Divide `count` trajectories, so that all engines that get some end at the same time, as soon as they can.

    No engine gets fewer than `least`, unless one gets all.
    """
    chosen = [*range(len(engines))]
    shares = [0.0]
    while len(chosen) > 1:
        rates = sum(engines[engine].rate for engine in chosen)
        end = (count + sum(engines[engine].seconds * engines[engine].rate for engine in chosen)) / rates
        shares = [(end - engines[engine].seconds) * engines[engine].rate for engine in chosen]
        if min(shares) >= least:
            break
        del chosen[shares.index(min(shares))]
    else:
        chosen = [min(range(len(engines)), key=lambda engine: engines[engine].seconds + count / engines[engine].rate)]
        shares = [count]
    sizes, given, begun = [0] * len(engines), 0, 0.0
    for engine, share in zip(chosen, shares, strict=True):
        begun += share
        sizes[engine] = round(begun) - given
        given = round(begun)
    return sizes
