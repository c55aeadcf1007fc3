"""How many replicas there should be: by what their engines have to do, and not by open requests, which differ in size."""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

BUSY, QUEUED_SECONDS = "busy", "queued_seconds"
"""What each replica tells Ray Serve of its engine: the share of its slots that are live, and how long what waits will take."""

PATIENCE_SECONDS = 5.0
"""The time in which what waits now should get its turn."""


def by_work(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """An autoscaling policy: as many replicas as are busy, and those that do in `PATIENCE_SECONDS` what waits.

    Ray Serve keeps the result between `min_replicas` and `max_replicas`, and applies the delays of the configuration.
    """
    told = context.aggregated_metrics or {}
    busy = sum(told.get(BUSY, {}).values())
    queued = sum(told.get(QUEUED_SECONDS, {}).values())
    return math.ceil(busy + queued / PATIENCE_SECONDS), {}
