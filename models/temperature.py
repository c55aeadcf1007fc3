"""The temperature of a trajectory: what scales sigma. One for all its supervision steps, or one for each of the first ones."""

Temperature = float | list[float]
"""A number, or one for each supervision step, of which the last also holds for the steps after it."""

LONGEST = 8
"""So many steps have a temperature of their own."""


def by_step(temperature: Temperature) -> list[float]:
    """Those of steps 1 to LONGEST. Raises ValueError for none and for more."""
    each = _listed(temperature)
    if not 1 <= len(each) <= LONGEST:
        raise ValueError(f"{len(each)} temperatures: give 1 to {LONGEST}")
    return each + each[-1:] * (LONGEST - len(each))


def spelled(temperature: Temperature, min_steps: int = 1) -> str:
    """For people: 1.5, or "3, 0" for 3 in the first step and 0 after it; where no trajectory may halt at once, that too."""
    numbers = ", ".join(f"{each:g}" for each in _listed(temperature))
    return numbers if min_steps == 1 else f"{numbers}; at least {min_steps} steps"


def _listed(temperature: Temperature) -> list[float]:
    return temperature if isinstance(temperature, list) else [temperature]
