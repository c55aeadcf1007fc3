"""The runner that replays CUDA graphs."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from gram.kernels.readout import Readout
from gram.models.checkpoint import load_checkpoint
from gram.models.serving import prepare
from gram.server.engine.graphs import GPU_TILE, GraphRunner
from gram.server.engine.runner import Runner
from gram.server.engine.slots import SlotPool, Start
from tests.kernels.support import forget_choices

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")]


@pytest.fixture(scope="module", params=["triton step", "triton", "torch"])
def runner(checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[GraphRunner]:
    """A runner with Triton's whole step, one with its other kernels, and one without any, as on a machine without Triton."""
    kernels, _, whole = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAM_KERNELS", kernels)
        forget_choices()
        device = torch.device("cuda")
        model = load_checkpoint(checkpoint, device, torch.bfloat16)
        if whole:
            assert prepare(model, GPU_TILE) == "Triton step"
        yield GraphRunner(model, device)
    forget_choices()


def starts(count: int) -> list[Start]:
    """Trajectories of a few puzzles."""
    draw = random.Random(count)
    puzzles = [bytes(draw.randrange(3) for _ in range(64)) for _ in range(5)]
    return [Start(slot, puzzles[slot % 5], slot % 7, slot, 1.0 + slot % 2, 3 + slot % 4) for slot in range(count)]


def listed(readout: Readout) -> list[object]:
    return [part.tolist() for part in (readout.score, readout.finite, readout.retires, readout.answers)]


def same(a: SlotPool, b: SlotPool) -> bool:
    live = slice(a.live)
    return all(torch.equal(x[live], y[live]) for x, y in zip((*a.state, a.columns), (*b.state, b.columns), strict=True))


@pytest.mark.parametrize("rows", [1, GPU_TILE, GPU_TILE + 1, 3 * GPU_TILE])
def test_a_replay_does_what_its_kernels_do_one_by_one(runner: GraphRunner, rows: int) -> None:
    replayed, stepped = runner.pool(3 * GPU_TILE), Runner.pool(runner, 3 * GPU_TILE)
    for pool in (replayed, stepped):
        pool.place(starts(rows))
    for _ in range(3):
        shown = listed(runner.step(replayed))
        for start in range(0, rows, GPU_TILE):
            runner._step_rows(stepped, slice(start, start + GPU_TILE))
        assert shown == listed(stepped.readout(stepped.report[:rows]))
        assert same(replayed, stepped)


def test_trajectories_end_and_others_take_their_places(runner: GraphRunner) -> None:
    """A row that starts later, in another tile and beside other rows, ends as if it had been there from the start."""
    pool, ends = runner.pool(2 * GPU_TILE), {}
    waiting = starts(5 * GPU_TILE)
    everything = list(waiting)
    free = list(range(2 * GPU_TILE))
    holder: dict[int, Start] = {}
    while waiting or holder:
        placed = [replace(start, slot=slot) for start, slot in zip(waiting, free, strict=False)]
        del waiting[: len(placed)], free[: len(placed)]
        holder |= {start.slot: start for start in placed}
        pool.place(placed)
        readout = runner.step(pool)
        ended = [(slot, row) for row, slot in enumerate(pool.slots) if readout.retires[row]]
        for slot, row in ended:
            ends[holder.pop(slot).index] = readout.score[row].item(), readout.answers[row].tolist()
        pool.release([slot for slot, _ in ended])
        free += [slot for slot, _ in ended]
    whole = runner.pool(5 * GPU_TILE)
    whole.place(everything)
    seen: dict[int, object] = {}
    for _ in range(6):
        readout = runner.step(whole)
        for row in range(whole.live):
            if readout.retires[row]:
                seen.setdefault(row, (readout.score[row].item(), readout.answers[row].tolist()))
    assert ends == seen


def test_the_host_waits_for_nothing_but_the_report(runner: GraphRunner) -> None:
    pool = runner.pool(2 * GPU_TILE)
    pool.place(starts(GPU_TILE + 5))
    runner.step(pool)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pool.release([0, 7, GPU_TILE])
        pool.place([replace(start, slot=slot) for start, slot in zip(starts(3), (0, 7, GPU_TILE), strict=True)])
        runner.start(pool)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert runner.finish(pool).finite.all()


def test_serving_takes_no_more_memory_than_it_had_at_the_start(runner: GraphRunner) -> None:
    pool = runner.pool(2 * GPU_TILE)
    pool.place(starts(2 * GPU_TILE))
    runner.step(pool)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        runner.step(pool)
    assert torch.cuda.memory_allocated() == before
