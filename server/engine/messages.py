"""What the API process and the engine process say to each other, and the framing on the socket between them.

Messages are msgspec structs in MessagePack, each behind its length in four bytes: typed on both sides, and no pickle.
"""

import struct
from typing import Any, Generic, TypeVar

import msgspec

from server.engine.pruning import Prune


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Run trajectories first_trajectory .. num_trajectories - 1 of a request."""

    request: int
    model: str
    puzzle: bytes
    num_trajectories: int
    max_steps: int
    seed: int
    temperature: float
    first_trajectory: int = 0
    prune: Prune | None = None


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Drop the request's trajectories, running and waiting."""

    request: int


class Trajectory(msgspec.Struct, frozen=True, array_like=True):
    """A trajectory that ended: its answer's symbols, one byte each, and the LPRM's score in [0, 1].

    answer is None when it was pruned, or dropped because its state turned non-finite.
    """

    request: int
    index: int
    steps: int
    score: float
    answer: bytes | None
    pruned: bool = False


class LaneStats(msgspec.Struct, frozen=True, array_like=True):
    """One model's load after a step."""

    live: int
    waiting: int


class StepReport(msgspec.Struct, tag=True, frozen=True):
    """What one supervision step of one model brought. `started`: request -> seconds it waited for its first slot."""

    model: str
    finished: list[Trajectory]
    started: dict[int, float]
    rows: int
    seconds: float
    stats: LaneStats


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The engine has loaded its models and made a step of each."""

    models: list[str]
    device: str
    dtype: str
    slots: int


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The engine can't start; it exits after this."""

    message: str


ToEngine = Submit | Cancel
FromEngine = StepReport | Ready | Failed

LENGTH = struct.Struct("<I")
T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def frame(message: ToEngine | FromEngine) -> bytes:
    """The message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Unframer(Generic[T]):
    """Cuts a stream of bytes into messages of one type."""

    def __init__(self, message_type: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Take what arrived; return the messages that are now whole."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < LENGTH.size + length:
                break
            body = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            messages.append(self._decoder.decode(body))
        return messages
