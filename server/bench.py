"""`gram bench`: the ceilings of this machine, and how near the kernels, the supervision step and the engine come to them."""

import datetime
import itertools
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, Field
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from gram.kernels import timing, turns
from gram.kernels.noise import NoiseKey
from gram.models.config import ModelConfig
from gram.models.markdown import table
from gram.models.network import GRAM
from gram.models.serving import prepare
from gram.models.tasks import TASKS
from gram.server.bench_against import Comparison
from gram.server.catalog import read_models
from gram.server.engine.device import Placement, resolve
from gram.server.engine.engine import Engine
from gram.server.engine.graphs import GraphRunner
from gram.server.engine.lane import Lane
from gram.server.engine.rows import cpu_runner
from gram.server.engine.runner import CPU_TILE, Runner
from gram.server.engine.slots import SlotPool, Start
from gram.server.local import steps as engine_steps
from gram.server.sampling.options import Options
from gram.server.settings import EngineSettings

_ENGINE_TURNS, _ENGINE_SECONDS = 5, 1.0
_TRAJECTORIES = 20
"""The trajectories of each request to the engine."""

_SUDOKU = TASKS["sudoku-9x9"]
SIZES = {
    "D 128": ModelConfig(vocab_size=_SUDOKU.vocab_size, seq_len=_SUDOKU.seq_len),
    "D 512": ModelConfig(
        vocab_size=_SUDOKU.vocab_size,
        seq_len=_SUDOKU.seq_len,
        num_registers=16,
        dim=512,
        mixer_dim=512,
        mlp_dim=1536,
        guidance_dim=512,
        low_steps=6,
        transitions=3,
    ),
}
"""The models whose step is measured: the default sizes and the paper's, both on the 9x9 Sudoku grid, with random weights."""


class KernelFigures(BaseModel):
    """A kernel at one size, over `slots` rows."""

    name: str
    model: str
    slots: int
    gbps: float = Field(description="10^9 bytes of its inputs and outputs per second")
    share_of_copy: float = Field(description="as a share of the rate at which this machine reads or copies memory")
    vs_eager: float = Field(description="speed as a multiple of the reference in PyTorch, which on a CPU is the same code")
    vs_compile: float | None = Field(description="speed as a multiple of the reference under torch.compile; null if that fails")


class StepFigures(BaseModel):
    """A supervision step of a full pool."""

    model: str
    slots: int
    dtype: str
    kernels: str = Field(description="who made it: models/serving.py")
    ms: float
    gflops: float = Field(description="10^9 operations of its matrix products per second")
    share_of_matmul: float = Field(description="as a share of the best rate of matrix products on this machine")
    trajectory_steps_per_s: float


class EngineFigures(BaseModel):
    """The engine at saturation, with a bundled model and requests of 20 trajectories."""

    model: str
    slots: int
    trajectory_steps_per_s: float
    host_share: float = Field(description="share of time for scheduling and reporting: 1 - rate / rate of the bare step")


class BenchReport(BaseModel):
    """The whole report, which --json writes."""

    machine: str
    date: str
    torch: str
    dtype: str
    threads: int
    matmul_gflops: float
    copy_gbps: float
    kernels: list[KernelFigures]
    step: list[StepFigures]
    engine: list[EngineFigures]
    against: Comparison | None = Field(None, description="these figures against those of an earlier build, with --against")

    def text(self) -> str:
        """The report in Markdown, for a terminal."""
        where = f"{self.machine}, {self.threads} threads, {self.dtype}, torch {self.torch}, {self.date}"
        ceilings = f"matrix products {self.matmul_gflops:,.0f} GFLOP/s, memory {self.copy_gbps:,.1f} GB/s"
        tables = [_table(group) for group in (self.kernels, self.step, self.engine) if group]
        return "\n\n".join([where, ceilings, *tables, *([self.against.text()] if self.against else [])])


def measure(options: EngineSettings) -> BenchReport:
    """Measure everything, with a progress bar. Raises CheckpointError, DeviceError."""
    place = resolve(options)
    engine = Engine(options.for_checkpoint(options.model[0]))
    (lane,) = engine.lanes.values()
    slots = [options.slots] if options.slots else _slots(lane)
    cases = [(size, case) for size in SIZES for case in _cases(size, place)]
    with tqdm(total=1 + len(cases) + len(SIZES) * len(slots) + 1, desc="ceilings", unit="part") as bar:
        tiles = [sizes_of(config, lane.runner.tile) for config in SIZES.values()]
        products = [product for tile in tiles for product in tile.products()]
        ceiling = timing.ceiling(place.device, place.dtype, products, place.threads)
        torch.set_num_threads(place.threads)  # copies and kernels are measured with all threads
        copy = timing.memory(place.device)
        bar.update()
        measured: list[timing.Measured] = []
        for size, case in cases:
            bar.set_description(f"{case.name}, {size}")
            compiler = all(kernel.vs_compile is not None for kernel in measured)  # one that failed once is not tried again
            measured.append(timing.measure(case, place.device, copy, compiler=compiler))
            bar.update()
        torch.set_num_threads(1)  # each tile is computed by one thread
        stepped = []
        for size, count in itertools.product(SIZES, slots):
            bar.set_description(f"step, {size}, {count} slots")
            stepped.append(_step(size, lane.runner, place, count, ceiling))
            bar.update()
        bar.set_description("engine")
        served = _engine(engine, options.model[0])
        bar.update()
    return BenchReport(
        machine=_machine(place),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        torch=torch.__version__,
        dtype=_name(place.dtype),
        threads=place.threads,
        matmul_gflops=ceiling.rate / 1e9,
        copy_gbps=copy.rate / 1e9,
        kernels=[_kernel(size, place, each, copy) for (size, _), each in zip(cases, measured, strict=True)],
        step=[each.model_copy(update={"share_of_matmul": best / ceiling.rate}) for each, best in stepped],
        engine=[served],
    )


def _slots(lane: Lane) -> list[int]:
    """The numbers of slots to measure: one tile, the engine's default, and twice that."""
    return sorted({lane.runner.tile, lane.num_slots, 2 * lane.num_slots})


def _cases(size: str, place: Placement) -> Iterator[timing.Case]:
    return timing.cases(sizes_of(SIZES[size], place.slots), place.device, place.dtype)


def sizes_of(config: ModelConfig, rows: int) -> timing.Sizes:
    """The sizes of the kernels in a step of this model."""
    return timing.Sizes(
        rows=rows,
        length=config.length,
        dim=config.dim,
        mixer_dim=config.mixer_dim,
        mlp_dim=config.mlp_dim,
        guidance_dim=config.guidance_dim,
        num_registers=config.num_registers,
        vocab_size=config.vocab_size,
    )


def _kernel(size: str, place: Placement, measured: timing.Measured, copy: timing.Ceiling) -> KernelFigures:
    return KernelFigures(
        name=measured.name,
        model=size,
        slots=place.slots,
        gbps=measured.rate / 1e9,
        share_of_copy=measured.best / copy.rate,
        vs_eager=measured.vs_eager,
        vs_compile=measured.vs_compile,
    )


def _step(size: str, like: Runner, place: Placement, slots: int, ceiling: timing.Ceiling) -> tuple[StepFigures, float]:
    """Time a step of the engine's kind of runner over slots that are all live, in turns with the fastest product.

    Returns its figures, but for its share, and the rate of its best turn in operations per second.
    """
    model = GRAM(SIZES[size], place.dtype, posterior=False).to(place.device).cast_weights().requires_grad_(False)
    kernels = prepare(model, CPU_TILE)
    runner = (
        GraphRunner(model, place.device) if isinstance(like, GraphRunner) else cpu_runner(model, place.device, like.threads)
    )
    pool = runner.pool(slots)
    fill(pool, model.config, slots)
    steps, products = turns.each_turn([lambda _: runner.step(pool), ceiling.call], place.device)
    once, operations = statistics.median(steps), slots * row_operations(model.config)
    ceiling.see(products)
    figures = StepFigures(
        model=size,
        slots=slots,
        dtype=_name(place.dtype),
        kernels=kernels,
        ms=once * 1e3,
        gflops=operations / once / 1e9,
        share_of_matmul=0,
        trajectory_steps_per_s=slots / once,
    )
    return figures, operations / min(steps)


def fill(pool: SlotPool, config: ModelConfig, slots: int) -> None:
    """Start a trajectory that never ends in each slot, four of them to a puzzle."""
    puzzles = torch.randint(0, config.vocab_size, (-(-slots // 4), config.seq_len), dtype=torch.uint8).numpy()
    pool.place([Start(slot, puzzles[slot // 4].tobytes(), slot // 4, slot % 4, 1.0) for slot in range(slots)])


def _bare_step(runner: Runner, pool: SlotPool) -> float:
    (once,) = turns.seconds([lambda _: runner.step(pool)], runner.device)
    return once


def row_operations(config: ModelConfig) -> int:
    """The additions and multiplications in the matrix products of one trajectory's supervision step, the readout included.

    PyTorch counts them, on tensors without data.
    """
    meta = torch.device("meta")
    with meta:
        model = GRAM(config, posterior=False)
        key = torch.zeros(1, dtype=torch.int64)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            e_x = model.encode(key.expand(1, config.seq_len))
            state = model.supervision_step(model.initial_state(1), e_x, NoiseKey(key, key, key, torch.ones(1)))
            model.read(state, key, key, torch.ones(1))
    operations: int = counter.get_total_flops()
    return operations


def _engine(engine: Engine, folder: Path) -> EngineFigures:
    """Time the engine at saturation, in turns with bare steps of the same slots."""
    ((name, lane),) = engine.lanes.items()
    pool = lane.runner.pool(lane.num_slots)
    fill(pool, lane.runner.model.config, lane.num_slots)
    engine.warm_up()
    (model,) = read_models([folder]).values()
    held_out = next(iter(model.task.test_sets.values()))
    puzzles = held_out if len(held_out) else model.task.read(model.task.examples[0])[None]  # a task without code has none
    options = Options(num_trajectories=_TRAJECTORIES)
    requests = (options.submit(i, name, puzzles[i % len(puzzles)], i) for i in itertools.count())
    stepping = engine_steps(engine, requests, in_flight=2 + 2 * lane.num_slots // _TRAJECTORIES)
    rates, shares = [], []
    for _ in range(_ENGINE_TURNS):
        made, taken, begin = 0, 0.0, time.monotonic()
        while taken < _ENGINE_SECONDS:
            made += next(stepping).rows
            taken = time.monotonic() - begin
        rates.append(made / taken)
        shares.append(1 - rates[-1] * _bare_step(lane.runner, pool) / lane.num_slots)
    rate, share = statistics.median(rates), statistics.median(shares)
    return EngineFigures(model=name, slots=lane.num_slots, trajectory_steps_per_s=rate, host_share=share)


def _machine(place: Placement) -> str:
    """The name of the processor."""
    if place.device.type == "cuda":
        return torch.cuda.get_device_name(place.device)
    names = (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _table(figures: Sequence[BaseModel]) -> str:
    """A table with a line for each of the figures, and a column for each field."""
    header = list(type(figures[0]).model_fields)
    return table(header, [[_cell(name, getattr(line, name)) for name in header] for line in figures])


def _cell(name: str, value: str | float | None) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.1%}" if "share" in name else f"{value:,.2f}"
        case int():
            return f"{value:,}"
    return value
