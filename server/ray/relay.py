"""The replica's side: it keeps one engine running, and shares it between the API processes that connect.

The supervisor's loop is that of `gram serve`. Only the requests are not its own: they come over the connections, and what the
engine reports of them goes back there.
"""

import asyncio
import contextlib
import secrets
from collections import Counter

import msgspec

from gram.server.engine.messages import Cancel, FromEngine, Ready, StepReport, Submit, ToEngine, Unframer, frame
from gram.server.ray.messages import TOKEN_BYTES, Died, Draining, FromReplica, Place
from gram.server.settings import ServerSettings
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.supervisor import Listener, Supervisor

_CONNECT_SECONDS = 5
"""Time for who connects to say the token."""


class _Link:
    """A connection of an API process. `open`: its requests in the engine -> their trajectories that have not ended."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.open: Counter[int] = Counter()

    def send(self, message: FromReplica) -> None:
        self._writer.write(frame(message))

    def forward(self, message: FromEngine) -> None:
        """Send on what the engine says. Of a step only what is its own; the load is told to all."""
        if not isinstance(message, StepReport):
            self.send(message)
            return
        own = msgspec.structs.replace(
            message,
            finished=[trajectory for trajectory in message.finished if trajectory.request in self.open],
            started={request: seconds for request, seconds in message.started.items() if request in self.open},
            out_of_memory=[request for request in message.out_of_memory if request in self.open],
            steps=[step for step in message.steps if step.request in self.open],
        )
        for trajectory in own.finished:
            self.open[trajectory.request] -= 1
            if not self.open[trajectory.request]:
                del self.open[trajectory.request]
        for request in own.out_of_memory:
            del self.open[request]
        self.send(own)


class Relay(Supervisor):
    """Owns the replica's engine. All methods run on one event loop."""

    def __init__(self, replica: str, settings: ServerSettings, rotation: Rotation, listener: Listener) -> None:
        """`replica`: its name in Ray."""
        super().__init__(settings, rotation, 0, listener)
        self._replica = replica
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._links: set[_Link] = set()
        self._said: Ready | None = None
        self._models = [*rotation.folders]
        self._idle = asyncio.Event()
        self._draining = False

    async def listen(self, host: str) -> Place:
        """Take connections on this address, at any port. Returns what to tell the API processes."""
        server = await asyncio.start_server(self._serve, host)
        return Place(self._replica, host, server.sockets[0].getsockname()[1], self._token, self._models)

    async def drain(self) -> None:
        """Ask for nothing new, and wait until all that is here has ended."""
        self._draining = True
        self._tell(Draining())
        while any(link.open for link in self._links):
            self._idle.clear()
            await self._idle.wait()

    async def _run_once(self) -> bool:
        try:
            return await super()._run_once()
        finally:
            for link in self._links:
                link.open.clear()
            self._idle.set()
            self._tell(Died())

    def _receive(self, message: FromEngine) -> None:
        super()._receive(message)
        if isinstance(message, Ready):
            self._said = message
        for link in self._links:
            link.forward(message)
        self._idle.set()

    def _tell(self, message: FromReplica) -> None:
        for link in self._links:
            link.send(message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end. What it has in the engine then is cancelled."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError):
            token = await asyncio.wait_for(reader.readexactly(TOKEN_BYTES), _CONNECT_SECONDS)
            if secrets.compare_digest(token, self._token):
                await self._converse(reader, _Link(writer))
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, link: _Link) -> None:
        self._links.add(link)
        if self.ready and self._said:
            link.send(self._said)
        if self._draining:
            link.send(Draining())
        unframer: Unframer[ToEngine] = Unframer(ToEngine)
        try:
            while data := await reader.read(1 << 20):
                for message in unframer.feed(data):
                    self._pass_on(message, link)
        finally:
            self._links.remove(link)
            for request in [*link.open]:
                self._pass_on(Cancel(request), link)

    def _pass_on(self, message: ToEngine, link: _Link) -> None:
        """Pass a message about a request to the engine. Without one it is dropped: at Ready, all is submitted again."""
        if not self.ready:
            return
        match message:
            case Submit() if message.model in self.loaded:
                link.open[message.request] = message.num_trajectories - message.first_index
                self._send(message)
            case Cancel() if link.open.pop(message.request, None):
                self._send(message)
                if not any(other.open for other in self._links):
                    self._idle.set()
                    self.workload.pause()
