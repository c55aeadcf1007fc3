"""How fast the kernels run, beside the ceilings of this machine: the part of `gram bench` that knows no model.

Every call takes the next of a rotating set of random inputs, which together exceed the caches.
"""

import logging
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
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
from gram.kernels.turns import each_turn

_ROTATION_BYTES = 1 << 28
_BURST_OPERATIONS = 1 << 30
"""Operations of a thread between two waits for the other threads."""

_log = logging.getLogger("gram")


@dataclass(frozen=True)
class Product:
    """The shapes of a matrix product: a [..., m, k] times b [..., k, n]."""

    a: tuple[int, ...]
    b: tuple[int, ...]

    @property
    def operations(self) -> int:
        """Its additions and multiplications."""
        return 2 * math.prod(self.a) * self.b[-1]


@dataclass
class Ceiling:
    """The fastest of several calls on this machine, the operations or bytes of one call, and its rate: that many per second.

    The rate is that of the best turn ever seen, since other work on the machine slows nearly every turn, but hardly the best
    of many. So shares are taken when everything has been measured, and none is above 1.
    """

    call: Callable[[int], object]
    amount: int
    rate: float

    def see(self, taken: Sequence[float]) -> None:
        """Take note of further turns: the seconds of a call in each."""
        self.rate = max(self.rate, self.amount / min(taken))


def _fastest(sides: Sequence[tuple[Callable[[int], object], int]], device: torch.device) -> Ceiling:
    best = [min(times) for times in each_turn([call for call, _ in sides], device)]
    found = [Ceiling(call, amount, amount / once) for (call, amount), once in zip(sides, best, strict=True)]
    return max(found, key=lambda each: each.rate)


def ceiling(device: torch.device, dtype: torch.dtype, products: Sequence[Product], threads: int) -> Ceiling:
    """The machine's ceiling for matrix products: the best of large square ones and of `products`.

    On a CPU all threads compute a square product together, while each thread computes `products` of its own: small products
    that stay in a core's cache can be faster than large ones.
    """
    operands = partial(_operands, device=device, dtype=dtype)
    sides: list[tuple[Callable[[int], object], int]] = []
    for size in (4096, 8192, 16384) if device.type == "cuda" else (1024, 2048, 4096):
        square = Product((size, size), (size, size))
        sides.append((partial(_multiply_together, threads, operands(square)), square.operations))
    if device.type == "cuda":
        sides += [(partial(_multiply, operands(product)), product.operations) for product in products]
    else:
        workers = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        for product in products:
            repeats = math.ceil(_BURST_OPERATIONS / product.operations)
            own = [operands(product) for _ in range(threads)]
            sides.append((partial(_multiply_apart, workers, own, repeats), product.operations * repeats * threads))
    return _fastest(sides, device)


def _operands(product: Product, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Three pairs of random matrices; b is transposed in memory, as the weights of a linear layer are."""
    shape = (*product.b[:-2], product.b[-1], product.b[-2])
    return [
        (torch.randn(product.a, device=device, dtype=dtype), torch.randn(shape, device=device, dtype=dtype).mT)
        for _ in range(3)
    ]


def _multiply(pairs: Sequence[tuple[Tensor, Tensor]], call: int) -> Tensor:
    return torch.matmul(*pairs[call % len(pairs)])


def _multiply_together(threads: int, pairs: Sequence[tuple[Tensor, Tensor]], call: int) -> Tensor:
    """Multiply with all threads of a CPU, and leave one, as a step needs it."""
    torch.set_num_threads(threads)
    product = _multiply(pairs, call)
    torch.set_num_threads(1)
    return product


def _multiply_apart(workers: Executor, own: Sequence[Sequence[tuple[Tensor, Tensor]]], repeats: int, _: int) -> None:
    """Multiply in each thread of a CPU, `repeats` times."""

    def burst(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        for call in range(repeats):
            _multiply(pairs, call)

    list(workers.map(burst, own))


def memory(device: torch.device) -> Ceiling:
    """The machine's ceiling for memory, in bytes: a tensor far beyond the caches that is copied, or one that is only read."""
    size = 1 << (30 if device.type == "cuda" else 28)
    source, target = torch.randn(2, size // 4, device=device)
    return _fastest([(lambda _: target.copy_(source), 2 * size), (lambda _: source.sum(), size)], device)


@dataclass(frozen=True)
class Case:
    """A kernel at one size: the dispatched function, its reference in PyTorch, and a function that draws inputs for both."""

    name: str
    kernel: Callable[..., object]
    reference: Callable[..., object]
    draw: Callable[[], tuple[Tensor | NoiseKey | None, ...]]


@dataclass(frozen=True)
class Measured:
    """A case's rate in bytes per second, and its speed as a multiple of the reference's, eager and under torch.compile.

    The bytes are those of its inputs and outputs, each counted once; `best` is the rate of the best turn. Without a working
    compiler, `vs_compile` is None.
    """

    name: str
    rate: float
    best: float
    vs_eager: float
    vs_compile: float | None


@dataclass(frozen=True)
class Sizes:
    """The sizes of a supervision step's kernels: B rows, L positions, D channels, hidden widths, registers and V symbols."""

    rows: int
    length: int
    dim: int
    mixer_dim: int
    mlp_dim: int
    guidance_dim: int
    num_registers: int
    vocab_size: int

    def products(self) -> list[Product]:
        """The matrix products of a step over these rows, but the decoder's."""
        positions = self.rows * self.length
        mixers = [(2 * self.mixer_dim, self.length), (self.length, self.mixer_dim)]
        linear = [(self.dim, 2 * self.mlp_dim), (self.mlp_dim, self.dim)]
        linear += [(self.dim, 2 * self.guidance_dim), (self.guidance_dim, self.dim)]
        return [
            *(Product((self.rows, out, wide), (self.rows, wide, self.dim)) for out, wide in mixers),
            *(Product((positions, wide), (wide, out)) for wide, out in linear),
        ]


def cases(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Every kernel, as a supervision step of these sizes calls it."""
    rows, length, dim = sizes.rows, sizes.length, sizes.dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def numbers() -> Tensor:
        return torch.randint(0, 1 << 40, (rows,), device=device)

    def key() -> NoiseKey:
        return NoiseKey(numbers(), numbers(), numbers(), torch.ones(rows, device=device))

    def state(channels: int = dim) -> Tensor:
        return normal(rows, length, channels)

    def weight() -> Tensor:
        return normal(dim, sizes.guidance_dim) * (1 / math.sqrt(sizes.guidance_dim))

    # Typed loosely: mypy takes the values of a dictionary for any of the arguments.
    bounds: dict[str, Any] = {"log_sigma_min": -8.0, "log_sigma_max": -1.0}
    registers: dict[str, Any] = {"num_registers": sizes.num_registers}
    yield Case(
        "guided_transition",
        partial(dispatch.guided_transition, **bounds),
        partial(gram.kernels.transition.guided_transition, **bounds),
        lambda: (
            state(),
            state(sizes.guidance_dim),
            state(sizes.guidance_dim),
            weight(),
            weight(),
            torch.randn(dim, device=device),
            key(),
        ),
    )
    yield Case(
        "stochastic_transition",
        dispatch.stochastic_transition,
        gram.kernels.transition.stochastic_transition,
        lambda: (state(), state(), state(), key()),
    )
    yield Case("add_rms_norm", dispatch.add_rms_norm, gram.kernels.norm.add_rms_norm, lambda: (state(), state()))
    yield Case("swiglu", dispatch.swiglu, gram.kernels.swiglu.swiglu, lambda: (state(2 * sizes.mlp_dim),))
    yield Case(
        "swiglu over positions",
        partial(dispatch.swiglu, dim=1),
        partial(gram.kernels.swiglu.swiglu, dim=1),
        lambda: (normal(rows, 2 * sizes.mixer_dim, dim),),
    )
    heads = partial(torch.randn, device=device)
    yield Case(
        "readout",
        partial(dispatch.readout, **registers),
        partial(gram.kernels.readout.readout, **registers),
        lambda: (
            state(),
            state(),
            heads(2, dim),
            heads(2),
            normal(sizes.vocab_size, dim),
            numbers(),
            numbers(),
            torch.ones(rows, device=device),
        ),
    )


@torch.inference_mode()
def measure(case: Case, device: torch.device, memory: Ceiling, *, compiler: bool = True) -> Measured:
    """Time a case in turns with its reference, the memory's ceiling and, with a `compiler`, the compiled reference (slow)."""
    first = case.draw()
    in_bytes = _bytes(first)
    rotation = [first, *(case.draw() for _ in range(_ROTATION_BYTES // in_bytes))]

    def side(function: Callable[..., object]) -> Callable[[int], object]:
        return lambda call: function(*rotation[call % len(rotation)])

    # The first call of each is not timed: it also compiles a Triton kernel.
    case.reference(*first)
    out_bytes = _bytes(case.kernel(*first))
    sides = [side(case.kernel), side(case.reference), memory.call]
    if compiler:
        compiled = torch.compile(case.reference, dynamic=False)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the cached constants of the noise
                compiled(*first)
            sides.append(side(compiled))
        except Exception as error:  # whatever is wrong with the compiler, the rest can be measured
            _log.warning("torch.compile does not work here (%s): no comparison with it", type(error).__name__)
    taken = each_turn(sides, device)
    kernel, eager, _, *rest = map(statistics.median, taken)
    size = in_bytes + out_bytes
    memory.see(taken[2])
    return Measured(case.name, size / kernel, size / min(taken[0]), eager / kernel, rest[0] / kernel if rest else None)


def _bytes(value: object) -> int:
    """The bytes of the tensors in a value."""
    if isinstance(value, NoiseKey):
        value = value.parts
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple) else 0
