"""The fleet of replicas: it finds them by way of Ray, connects to each, and asks again elsewhere when one is lost."""

import asyncio
import dataclasses
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import cast

from gram.server.engine.messages import Ready
from gram.server.ray.messages import Place
from gram.server.ray.remote import Link, Remote, ReplicaRefusedError
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.job import Job, Share
from gram.server.supervision.supervisor import Listener, Supervisor

log = logging.getLogger("gram")

_LOOK_SECONDS = 1
"""The interval at which replicas are looked for."""


class ReplicaFleet(Fleet):
    """Owns a supervisor for each replica that is there. While there is none, requests wait."""

    fixed = True

    def __init__(self, settings: ServerSettings, listener: Listener, places: Callable[[], Awaitable[list[Place]]]) -> None:
        """`places`: asks Ray for the replicas that run."""
        super().__init__(settings, listener)
        self._places = places
        # Several API processes share an engine: none may use the request numbers of another.
        self._ids = itertools.count(secrets.randbits(30) << 32)
        self._identities: dict[str, str] = {}
        self._refused: set[str] = set()
        self._homeless: list[Share] = []

    async def run(self) -> None:
        """Look for replicas until cancelled."""
        async with self._tasks:
            while True:
                for place in await self._places():
                    known = {cast(Remote, supervisor).place.replica for supervisor in self._supervisors} | self._refused
                    if place.replica not in known:
                        await self._connect(place)
                await asyncio.sleep(_LOOK_SECONDS)

    def close(self, job: Job) -> None:
        self._homeless = [share for share in self._homeless if share.job is not job]
        super().close(job)

    @property
    def _shares(self) -> list[Share]:
        return super()._shares + self._homeless

    async def _connect(self, place: Place) -> None:
        try:
            link = await Link.connect(place)
        except (OSError, TimeoutError) as error:
            log.warning("replica %s can't be reached at %s:%d: %r", place.replica, place.host, place.port, error)
            return
        listener = dataclasses.replace(self._listener, on_ready=self._on_ready)
        taken = {cast(Remote, supervisor).number for supervisor in self._supervisors}
        number = next(number for number in itertools.count() if number not in taken)
        supervisor = Remote(place, link, self._settings, self._rotation, number, listener, self._identities)
        self._supervisors.append(supervisor)
        self._tasks.create_task(self._run(supervisor))

    async def _run(self, supervisor: Supervisor) -> None:
        """Run a supervisor. When its replica is lost, its shares go to the others."""
        replica = cast(Remote, supervisor).place.replica
        try:
            await supervisor.run()
        except ReplicaRefusedError as error:
            log.error("replica %s gets no requests: %s", replica, error)
            self._refused.add(replica)
        except EngineUnavailableError as error:
            log.warning("replica %s is lost: %s; %d shares go to others", replica, error, len(supervisor.shares))
        self._supervisors.remove(supervisor)
        for share in supervisor.shares.values():
            self._place(share)
        if not self._supervisors and not self._homeless:  # nobody was promised answers of those models
            for promised in (self._identities, self._rotation.fingerprints, self._rotation.kernels):
                promised.clear()
            self._refused.clear()

    def _place(self, share: Share) -> None:
        if any(supervisor.serves(share.submit.model) for supervisor in self._supervisors):
            super()._place(share)
        else:
            share.sent = None
            self._homeless.append(share)

    def _on_ready(self, number: int, ready: Ready) -> None:
        self._listener.on_ready(number, ready)
        homeless, self._homeless = self._homeless, []
        for share in homeless:
            self._place(share)
        self._relieve()
