"""Why a request is not answered."""

from typing import Literal

Cause = Literal[
    "invalid",
    "not_found",
    "too_large",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "overloaded",
    "deadline",
    "slow_client",
    "no_engine",
    "out_of_memory",
    "stopping",
    "internal",
]
"""Why a request is not answered: what the metrics count errors by."""
