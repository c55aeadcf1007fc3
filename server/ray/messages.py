"""What goes over the connection between an API process and a replica: the engine's messages, and what the replica adds."""

from typing import NamedTuple

import msgspec

from gram.server.engine.messages import FromEngine

TOKEN_BYTES = 32


class Place(NamedTuple):
    """Where a replica is reached, as it tells by way of Ray: the connection itself does not go through Ray."""

    replica: str
    host: str
    port: int
    token: bytes
    """What a connection begins with; the replica refuses others."""
    models: list[str]


class Died(msgspec.Struct, tag=True, frozen=True):
    """The replica's engine has died. It starts another one, which says Ready."""


class Draining(msgspec.Struct, tag=True, frozen=True):
    """The replica is about to go: it ends what it has, and wants nothing new."""


FromReplica = FromEngine | Died | Draining
