"""The temperature of a trajectory, which scales sigma: one number, or a schedule with one for each supervision step."""

Temperature = float | list[float]
"""A number, or a schedule. No trajectory halts before the end of its schedule, whose last temperature holds for later steps."""

MAX_SCHEDULE = 8
"""Maximum schedule length."""


def schedule(temperature: Temperature) -> list[float]:
    """The temperature as a schedule of at least one step."""
    return temperature if isinstance(temperature, list) else [temperature]


def padded_schedule(temperature: Temperature) -> list[float]:
    """The temperatures of steps 1 to MAX_SCHEDULE. Raises ValueError for an empty schedule and for a longer one."""
    steps = schedule(temperature)
    if not 1 <= len(steps) <= MAX_SCHEDULE:
        raise ValueError(f"a schedule of {len(steps)} temperatures; give 1 to {MAX_SCHEDULE}")
    return steps + steps[-1:] * (MAX_SCHEDULE - len(steps))


def temperature_text(temperature: Temperature) -> str:
    """The temperature for people: "1.5", or "3, 0, 0" for 3 in the first step and 0 from then on."""
    return ", ".join(f"{each:g}" for each in schedule(temperature))
