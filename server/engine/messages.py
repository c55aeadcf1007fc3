"""The messages between the API process and an engine process, and their framing on the socket.

A message is a msgspec struct in MessagePack, preceded by its length in four bytes: typed on both sides, and no pickle.
"""

import struct
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from gram.models.perturbation import Perturbation
from gram.models.temperature import Temperature
from gram.server.engine.pruning import Prune


class Ending(StrEnum):
    """How a trajectory ended."""

    HALTED = "halted"
    """Its halt probability exceeded the threshold."""
    DEPTH = "depth"
    """It made max_steps supervision steps."""
    PRUNED = "pruned"
    """It gave up its slot, by the request's guidance. It has no answer."""
    NOT_FINITE = "not finite"
    """A number of its state became infinite or NaN. It has no answer."""


NEVER_HALT = 1.0
"""A threshold that no halt probability exceeds."""


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Run the trajectories with index first_index .. num_trajectories - 1 of a request.

    `puzzle`: its symbols, one byte each. `symmetries`: each trajectory sees an image of the puzzle, and the engine reports the
    answer to the puzzle as it was sent. `halt_threshold`: a trajectory ends when its halt probability exceeds this; None stands
    for the model's own. `suspect`: an engine may have died of this request; while an engine has such a request,
    it announces each step (see Stepping). `watch`: report this many trajectories, the first ones, after each of their steps.
    `background`: other requests go first.
    """

    request: int
    model: str
    puzzle: bytes
    num_trajectories: int
    max_steps: int
    seed: int
    temperature: Temperature
    symmetries: bool = False
    first_index: int = 0
    prune: Prune | None = None
    halt_threshold: float | None = None
    perturbation: Perturbation | None = None
    suspect: bool = False
    watch: int = 0
    background: bool = False


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Drop all trajectories of a request, running and waiting."""

    request: int


class Load(msgspec.Struct, tag=True, frozen=True):
    """Load one more checkpoint, from this folder. The engine answers Loaded or NotLoaded, and steps nothing until then.

    It frees a model of the same name first.
    """

    folder: str


class Unload(msgspec.Struct, tag=True, frozen=True):
    """Free a model. It must have no requests."""

    model: str


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Ask for a sign of life. The engine answers between two steps, so an engine that hangs does not answer."""


class Trajectory(msgspec.Struct, frozen=True, array_like=True):
    """A trajectory that has ended, as the engine reports it.

    `steps`: supervision steps that it made. `score`: the LPRM's, in [0, 1]. `answer`: its symbols, one byte each; None if it
    was pruned or its state was not finite.
    """

    request: int
    index: int
    steps: int
    score: float
    ending: Ending
    answer: bytes | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A trajectory that goes on: the answer and the score that it would have if it ended after these steps."""

    request: int
    index: int
    steps: int
    score: float
    answer: bytes


class LaneStats(msgspec.Struct, frozen=True, array_like=True):
    """The load of one model: its running trajectories, and those that wait for a slot."""

    live: int
    waiting: int


class Stepping(msgspec.Struct, tag=True, frozen=True):
    """A step of one model begins, of these requests, and nothing else runs: if the engine dies now, this step killed it."""

    model: str
    requests: list[int]


class StepReport(msgspec.Struct, tag=True, frozen=True):
    """The result of one supervision step of one model.

    `started`: request -> seconds that it waited for its first slot. `rows`: live rows of the step; `slots`: the most it could
    have. `seconds`: the engine's time for the step. `out_of_memory`: requests that end here because the device ran out of it.
    `steps`: trajectories that go on, of requests that asked to watch them.
    """

    model: str
    finished: list[Trajectory]
    started: dict[int, float]
    rows: int
    slots: int
    seconds: float
    stats: LaneStats
    out_of_memory: list[int] = []
    steps: list[Step] = []


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The engine has loaded its models and made a warm-up step of each.

    `models`: name -> fingerprint of its files. `kernels`: name -> who makes its steps (models/serving.py). `missing`: name ->
    why it could not be loaded again. `devices`: the number of devices of this kind in the machine, each for an engine of its
    own. `threads`: computing threads; None on a GPU.
    """

    models: dict[str, str]
    kernels: dict[str, str]
    missing: dict[str, str]
    device: str
    devices: int
    dtype: str
    slots: int
    threads: int | None


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """A model was loaded on request and has made its warm-up step."""

    model: str
    fingerprint: str
    kernels: str


class NotLoaded(msgspec.Struct, tag=True, frozen=True):
    """Loading failed; other models are unaffected."""

    model: str
    reason: str


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The engine can't start. It exits after this message."""

    message: str


class Pong(msgspec.Struct, tag=True, frozen=True):
    """The answer to a ping: each model's load, and the memory that the engine holds, in bytes if it is known."""

    lanes: dict[str, LaneStats]
    memory_bytes: int | None


ToEngine = Submit | Cancel | Load | Unload | Ping
FromEngine = StepReport | Stepping | Pong | Ready | Loaded | NotLoaded | Failed

LENGTH = struct.Struct("<I")
T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def frame(message: msgspec.Struct) -> bytes:
    """Encode a message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Unframer(Generic[T]):
    """Decodes a stream of bytes into messages of one type."""

    def __init__(self, message_type: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Add bytes that arrived, and return the messages that are now complete."""
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
