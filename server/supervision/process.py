"""One life of an engine process, as the API process sees it: its start, the messages, its silence and its end."""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Self

from gram.server.engine.messages import FromEngine, Ping, ToEngine, Unframer, frame
from gram.server.settings import EngineSettings, LogFormat

log = logging.getLogger("gram")

_PING_SECONDS = 1
_REAP_SECONDS = 5
"""Time for a killed engine to be gone. One that waits for a broken device may take longer, and is left behind."""


def command(settings: EngineSettings, log_format: LogFormat, number: int, known: Mapping[str, str]) -> list[str]:
    """The command that starts an engine, whose last option, the socket, EngineProcess adds.

    `number`, `known`: as Engine takes them.
    """
    engine = settings.model_dump_json(include=set(EngineSettings.model_fields))
    module = [sys.executable, "-P", "-m", "gram.server.engine.process"]
    return [*module, "--number", str(number), "--settings", engine, "--log-format", log_format, "--known", json.dumps(known)]


class Connection:
    """A connection to an engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._silent_seconds = 0

    def send(self, message: ToEngine) -> None:
        """Send a message; it is queued if the engine is busy."""
        self._writer.write(frame(message))

    async def messages(self) -> AsyncGenerator[FromEngine]:
        """Yield what the engine says, until it dies or `watch` gives it up."""
        unframer: Unframer[FromEngine] = Unframer(FromEngine)
        with contextlib.suppress(ConnectionError):  # as good as the end of the stream
            while data := await self._reader.read(1 << 20):
                self._silent_seconds = 0
                for message in unframer.feed(data):
                    yield message

    async def watch(self, answers: Callable[[], bool], patience: Callable[[], int]) -> None:
        """Ping the engine every second while `answers` says that it can, and give it up after `patience` silent seconds.

        The seconds are counted and not read off a clock: while this process itself is stopped, silence is no fault.
        """
        while self._silent_seconds < patience():
            if answers():
                self.send(Ping())
            await asyncio.sleep(_PING_SECONDS)
            self._silent_seconds += _PING_SECONDS
        log.error("the engine hangs: no sign of life for %d s", self._silent_seconds)
        self._writer.transport.abort()

    async def end(self) -> None:
        """Close the connection."""
        self._writer.close()


class EngineProcess(Connection):
    """An engine process at the other end of a socket pair."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Start an engine with a `command`."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            process = await asyncio.create_subprocess_exec(*command, "--fd", str(fd), pass_fds=[fd])
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def end(self) -> None:
        """Kill the process. Without its socket an engine exits by itself; one that does not is of no use."""
        await super().end()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.wait({asyncio.create_task(self._process.wait())}, timeout=_REAP_SECONDS)
