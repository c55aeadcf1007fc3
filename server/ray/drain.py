"""A replica that is to go has some time for its open requests, and tells those that are left.

Ray Serve says nothing to a replica with open requests: it waits for their end, and kills the replica when its patience is over.
But first it takes the replica off the list of those that run, and that can be seen.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger("gram")

_LOOK_SECONDS = 1.0
"""Between two looks at the list."""


async def end_late(listed: Callable[[], Awaitable[bool]], grace_seconds: float, end: Callable[[], None]) -> None:
    """Watch the list until cancelled. `end` is called, again and again, when the replica has been off it for the grace period.

    `listed`: whether the replica is on the list. It gets there when it has started.
    """
    while not await listed():
        await asyncio.sleep(_LOOK_SECONDS)
    since = None
    while True:
        if await listed():
            since = None
        elif since is None:
            since = time.monotonic()
            log.info("this replica is to go: open requests have %g s to end", grace_seconds)
        if since is not None and time.monotonic() - since >= grace_seconds:
            end()
        await asyncio.sleep(_LOOK_SECONDS)
