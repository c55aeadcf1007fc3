"""How fast the kernels run, beside what this machine can do: the part of `gram bench` that knows no model.

The method: the sides of a comparison take turns, seven each after a warm-up (three where those take ten seconds), so that a
change of the machine's speed meets all alike; a turn is as many calls as fill a twentieth of a second, and ends when the device
is done; the median turn counts. Every call takes the next of a rotating set of fresh random inputs, which together are larger
than the caches.
"""

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gram.kernels.norm
import gram.kernels.readout
import gram.kernels.swiglu
import gram.kernels.transition
from gram.kernels import dispatch
from gram.kernels.noise import NoiseKey

_TURNS = 7
_LEAST_TURNS = 3
_ENOUGH_SECONDS = 10.0
_TURN_SECONDS = 0.05
_ROTATION_BYTES = 1 << 28

_log = logging.getLogger("gram")


def seconds(sides: Sequence[Callable[[int], object]], device: torch.device) -> list[float]:
    """The time of a call of each side, which is given the call's number, in seconds."""
    calls = [_calls(side, device) for side in sides]
    turns: list[list[float]] = [[] for _ in sides]
    begin = time.perf_counter()
    for turn in range(_TURNS):
        if turn >= _LEAST_TURNS and time.perf_counter() - begin > _ENOUGH_SECONDS:
            break
        for side, count, times in zip(sides, calls, turns, strict=True):
            times.append(_turn(side, count, device) / count)
    return [statistics.median(times) for times in turns]


def _calls(side: Callable[[int], object], device: torch.device) -> int:
    """How many calls fill a turn; the warm-up."""
    once = _turn(side, 1, device)
    for _ in range(2):
        if once > _TURN_SECONDS:
            return 1
        once = _turn(side, 3, device) / 3
    return max(1, math.ceil(_TURN_SECONDS / once))


def _turn(side: Callable[[int], object], calls: int, device: torch.device) -> float:
    begin = time.perf_counter()
    for call in range(calls):
        side(call)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Ceiling:
    """What the machine multiplies fastest: two square matrices, in operations per second (2 n^3)."""

    multiply: Callable[[int], object]
    operations: int
    rate: float


def ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """The machine's ceiling for matrix products, with all of torch's threads: the best n."""
    found = []
    for size in (4096, 8192, 16384) if device.type == "cuda" else (1024, 2048, 4096):
        pairs = [torch.randn(2, size, size, device=device, dtype=dtype) for _ in range(3)]
        multiply = partial(_multiply, pairs)
        (once,) = seconds([multiply], device)
        found.append(Ceiling(multiply, 2 * size**3, 2 * size**3 / once))
    return max(found, key=lambda each: each.rate)


def _multiply(pairs: Sequence[Tensor], call: int) -> Tensor:
    return torch.mm(*pairs[call % len(pairs)])


def copy_rate(device: torch.device) -> float:
    """The machine's ceiling for memory, in bytes per second: read once and written once, of tensors far beyond the caches."""
    size = 1 << (30 if device.type == "cuda" else 28)
    source, target = torch.randn(2, size // 4, device=device)
    (once,) = seconds([lambda _: target.copy_(source)], device)
    return 2 * size / once


@dataclass(frozen=True)
class Case:
    """A kernel at one size: what the dispatcher makes of it, its reference in PyTorch, and how to draw inputs for both."""

    name: str
    kernel: Callable[..., object]
    reference: Callable[..., object]
    draw: Callable[[], tuple[Tensor | NoiseKey | None, ...]]


@dataclass(frozen=True)
class Measured:
    """A case's rate in bytes per second, and its speed as a multiple of the reference's, as it stands and under torch.compile.

    The bytes are those of its inputs and outputs, each once. Without a compiler that works, `vs_compile` is None.
    """

    name: str
    rate: float
    vs_eager: float
    vs_compile: float | None


def cases(rows: int, length: int, dim: int, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Every kernel, as a supervision step of B = `rows`, L = `length`, D = `dim` calls it."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def numbers() -> Tensor:
        return torch.randint(0, 1 << 40, (rows,), device=device)

    def key() -> NoiseKey:
        return NoiseKey(numbers(), numbers(), numbers(), torch.ones(rows, device=device))

    def state(channels: int = dim) -> Tensor:
        return normal(rows, length, channels)

    def weight() -> Tensor:
        return normal(dim, dim) * (1 / math.sqrt(dim))

    # Typed loosely: mypy takes what a dictionary holds for any of the arguments.
    bounds: dict[str, Any] = {"log_sigma_min": -8.0, "log_sigma_max": -1.0}
    registers: dict[str, Any] = {"num_registers": 4, "halt_threshold": 0.5}
    yield Case(
        "guided_transition",
        partial(dispatch.guided_transition, **bounds),
        partial(gram.kernels.transition.guided_transition, **bounds),
        lambda: (state(), state(), state(), weight(), weight(), normal(dim), key()),
    )
    yield Case(
        "stochastic_transition",
        dispatch.stochastic_transition,
        gram.kernels.transition.stochastic_transition,
        lambda: (state(), state(), state(), key()),
    )
    yield Case("add_rms_norm", dispatch.add_rms_norm, gram.kernels.norm.add_rms_norm, lambda: (state(), state()))
    yield Case("swiglu", dispatch.swiglu, gram.kernels.swiglu.swiglu, lambda: (state(6 * dim),))
    yield Case(
        "swiglu over positions",
        partial(dispatch.swiglu, dim=1),
        partial(gram.kernels.swiglu.swiglu, dim=1),
        lambda: (normal(rows, 512, dim),),
    )
    heads = partial(torch.randn, device=device)
    yield Case(
        "readout",
        partial(dispatch.readout, **registers),
        partial(gram.kernels.readout.readout, **registers),
        lambda: (state(), state(), heads(2, dim), heads(2), normal(10, dim), numbers(), numbers()),
    )


@torch.inference_mode()
def measure(case: Case, device: torch.device) -> Measured:
    """Run it in turns with its reference. Compiling takes a while."""
    first = case.draw()
    in_bytes = _bytes(first)
    rotation = [first, *(case.draw() for _ in range(_ROTATION_BYTES // in_bytes))]

    def side(function: Callable[..., object]) -> Callable[[int], object]:
        return lambda call: function(*rotation[call % len(rotation)])

    # What a first call does beside its work, as Triton's compiling, is not to be timed.
    case.reference(*first)
    out_bytes = _bytes(case.kernel(*first))
    sides = [side(case.kernel), side(case.reference)]
    compiled = torch.compile(case.reference, dynamic=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it has to say of the cached constants of the noise
            compiled(*first)
        sides.append(side(compiled))
    except Exception as error:  # whatever ails the compiler, the rest can be measured
        _log.warning("torch.compile does not work here (%s): no comparison with it", type(error).__name__)
    kernel, eager, *rest = seconds(sides, device)
    return Measured(case.name, (in_bytes + out_bytes) / kernel, eager / kernel, rest[0] / kernel if rest else None)


def _bytes(value: object) -> int:
    """Of the tensors in it."""
    if isinstance(value, NoiseKey):
        value = value.parts
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple) else 0
