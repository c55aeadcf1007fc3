"""The temperature of a trajectory: what scales sigma. One for all its supervision steps, or a schedule, made to its end."""

Temperature = float | list[float]
"""A number, or one for each supervision step: none halts before as many steps, and the last also holds for those after them."""

LONGEST = 8
"""So many steps have a temperature of their own."""


def by_step(temperature: Temperature) -> list[float]:
    """Those of steps 1 to LONGEST. Raises ValueError for none and for more."""
    each = listed(temperature)
    if not 1 <= len(each) <= LONGEST:
        raise ValueError(f"{len(each)} temperatures: give 1 to {LONGEST}")
    return each + each[-1:] * (LONGEST - len(each))


def spelled(temperature: Temperature) -> str:
    """For people: 1.5, or "3, 0, 0" for 3 in the first step and 0 after it."""
    return ", ".join(f"{each:g}" for each in listed(temperature))


def listed(temperature: Temperature) -> list[float]:
    """Those that are named; a trajectory makes as many steps at least."""
    return temperature if isinstance(temperature, list) else [temperature]
