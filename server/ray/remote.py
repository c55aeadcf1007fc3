"""The API process's side of a replica: a supervisor whose engine is at the other end of a connection."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator

from gram.server.engine.messages import FromEngine, Ready, Unframer
from gram.server.ray.messages import Died, Draining, FromReplica, Place
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.process import Connection
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.supervisor import Listener, Supervisor

log = logging.getLogger("gram")

_CONNECT_SECONDS = 5


class ReplicaLostError(EngineUnavailableError):
    """The connection to a replica has ended."""


class ReplicaRefusedError(EngineUnavailableError):
    """A replica would give other answers than those that are there already."""


class Link(Connection):
    """The connection to a replica. It outlives the replica's engines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._unframer: Unframer[FromReplica] = Unframer(FromReplica)
        self._received: deque[FromReplica] = deque()
        self.draining = False
        """Whether the replica wants nothing new."""

    @classmethod
    async def connect(cls, place: Place) -> "Link":
        """Connect to a replica. Raises OSError or TimeoutError."""
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(place.token)
        return cls(reader, writer)

    async def messages(self) -> AsyncGenerator[FromEngine]:
        """Yield what the engine says, until it dies. Raises ReplicaLostError when the connection ends."""
        while True:
            while self._received:
                match self._received.popleft():
                    case Died():
                        return
                    case Draining():
                        self.draining = True
                    case message:
                        yield message
            data = b""
            with contextlib.suppress(ConnectionError):
                data = await self._reader.read(1 << 20)
            if not data:
                raise ReplicaLostError("its connection has ended")
            self._silent_seconds = 0
            self._received += self._unframer.feed(data)

    async def end(self) -> None:
        """Nothing ends here: the same connection leads to the next engine."""

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class Remote(Supervisor):
    """Supervises a replica's engine."""

    def __init__(
        self,
        place: Place,
        link: Link,
        settings: ServerSettings,
        rotation: Rotation,
        number: int,
        listener: Listener,
        identities: dict[str, str],
    ) -> None:
        """`identities`: by model, what its answers depend on, of the replicas that are there; shared by all supervisors."""
        super().__init__(settings, rotation, number, listener)
        self.place = place
        self.number = number
        self._link = link
        self._identities = identities

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._link.close()

    def serves(self, model: str) -> bool:
        return model in self.place.models and not self._link.draining

    async def _start(self) -> Connection:
        return self._link

    def _on_ready(self, ready: Ready) -> None:
        """The replica's engine is ready. Raises ReplicaRefusedError if its answers would be others than those of the rest."""
        for model, fingerprint in ready.models.items():
            device = ready.device if ready.threads is None else "a CPU"
            identity = f"{fingerprint}, stepped by {ready.kernels[model]} in {ready.dtype} on {device}"
            if (known := self._identities.setdefault(model, identity)) != identity:
                raise ReplicaRefusedError(f"it has {model} as {identity}, and the others have {known}")
        super()._on_ready(ready)
        for share in [*self.shares.values()]:
            if share.submit.model not in self.loaded:
                self._end(share, EngineUnavailableError(f"{share.submit.model} is out of rotation; ask another model"))
