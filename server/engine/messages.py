"""What the API process and the engine process say to each other, and the framing on the socket between them.

Messages are msgspec structs in MessagePack, each behind its length in four bytes: typed on both sides, and no pickle.
"""

import struct
from typing import Any, Generic, TypeVar

import msgspec

from gram.models.temperature import Temperature
from gram.server.engine.pruning import Prune


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Run trajectories first_trajectory .. num_trajectories - 1 of a request.

    `symmetries`: each sees an image of the puzzle; what is reported of it is turned back.
    `suspect`: it may be what an engine died of. While the engine has such a request, it says what it steps: see Stepping.
    `watch`: so many of its trajectories, the first ones, are reported after each step too.
    """

    request: int
    model: str
    puzzle: bytes
    num_trajectories: int
    max_steps: int
    seed: int
    temperature: Temperature
    symmetries: bool = False
    first_trajectory: int = 0
    prune: Prune | None = None
    suspect: bool = False
    watch: int = 0


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Drop the request's trajectories, running and waiting."""

    request: int


class Load(msgspec.Struct, tag=True, frozen=True):
    """Load the checkpoint in this folder too. The answer is Loaded or NotLoaded; until then nothing is stepped."""

    folder: str


class Unload(msgspec.Struct, tag=True, frozen=True):
    """Free a model, which has no requests."""

    model: str


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Asks for a sign of life. The engine answers between two steps, so one that hangs does not."""


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


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A trajectory that goes on: what decoding and scoring it gives after so many steps."""

    request: int
    index: int
    steps: int
    score: float
    answer: bytes


class LaneStats(msgspec.Struct, frozen=True, array_like=True):
    """One model's load after a step."""

    live: int
    waiting: int


class Stepping(msgspec.Struct, tag=True, frozen=True):
    """A model's step begins, of rows of these requests, and nothing else does: should the engine die now, it is of that."""

    model: str
    requests: list[int]


class StepReport(msgspec.Struct, tag=True, frozen=True):
    """What one supervision step of one model brought. `started`: request -> seconds it waited for its first slot.

    `out_of_memory`: requests that end here, since the device's memory did not hold the step. `steps`: of requests that watch.
    """

    model: str
    finished: list[Trajectory]
    started: dict[int, float]
    rows: int
    seconds: float
    stats: LaneStats
    out_of_memory: list[int] = []
    steps: list[Step] = []


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The engine has loaded its models and made a step of each.

    `models`: name -> fingerprint of its files; `missing`: name -> why it could not be loaded again; `devices`: how many of its
    kind there are, each for an engine; `threads`: those that compute, of a CPU.
    """

    models: dict[str, str]
    missing: dict[str, str]
    device: str
    devices: int
    dtype: str
    slots: int
    threads: int | None


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """A model was loaded on demand, and has made a step."""

    model: str
    fingerprint: str


class NotLoaded(msgspec.Struct, tag=True, frozen=True):
    """It was not; all others are as before."""

    model: str
    reason: str


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The engine can't start; it exits after this."""

    message: str


class Pong(msgspec.Struct, tag=True, frozen=True):
    """The answer to a ping: each model's load now, and the memory that the engine holds, where that is known."""

    lanes: dict[str, LaneStats]
    memory_bytes: int | None


ToEngine = Submit | Cancel | Load | Unload | Ping
FromEngine = StepReport | Stepping | Pong | Ready | Loaded | NotLoaded | Failed

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
