"""The Accept header: which of the media types that the server can send a client gets."""

import re
from collections.abc import Sequence

_WEIGHT = re.compile(r";\s*q\s*=\s*([\d.]+)", re.IGNORECASE)
_UNMENTIONED = 1e-4
"""The weight of a type that the header does not mention. The smallest weight that a header can give is 0.001."""


def choose(accept: str, offered: Sequence[str]) -> str | None:
    """The one of the offered media types that the header prefers, of equal ones the first; None if it refuses them all.

    A type that the header does not mention comes after those that it does, but is not refused: many clients send a header that
    has nothing to do with what they ask for. Only a weight of 0 refuses.
    """
    weights = {}
    for part in accept.split(","):
        weight = _WEIGHT.search(part)
        try:
            weights[part.partition(";")[0].strip().lower()] = float(weight[1]) if weight else 1.0
        except ValueError:
            continue  # no number, so the part says nothing

    def preference(media_type: str) -> tuple[float, int]:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next(((weights[r], -place) for place, r in enumerate(ranges) if r in weights), (_UNMENTIONED, 0))

    best = max(offered, key=preference)
    return best if preference(best)[0] else None
