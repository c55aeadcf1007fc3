"""Which threads and slots an engine takes if no setting gives them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gram.kernels.readout import Readout
from gram.server.engine import calibration
from gram.server.engine.calibration import calibrate
from gram.server.engine.device import Placement
from gram.server.engine.engine import Engine
from gram.server.engine.runner import Runner
from gram.server.engine.slots import SlotPool
from gram.server.settings import EngineSettings
from tests.server.engine.support import tiny_model

RULE = Placement(torch.device("cpu"), torch.float32, slots=32, threads=2)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, int], float]], None]:
    """Sets the cost of a step, given its threads and slots. The clock is advanced by steps alone."""

    def set_cost(of: Callable[[int, int], float]) -> None:
        now = 0.0

        def step(runner: Runner, pool: SlotPool) -> Readout:
            nonlocal now
            threads = runner.threads._max_workers if runner.threads else 1
            now += of(threads, pool.num_slots)
            return real(runner, pool)

        real = Runner.step
        monkeypatch.setattr(Runner, "step", step)
        monkeypatch.setattr(calibration.time, "perf_counter", lambda: now)  # type: ignore[attr-defined]

    return set_cost


@pytest.mark.parametrize(
    ("of", "taken"),
    [
        (lambda threads, slots: slots / threads, (2, 32)),  # threads help, and a step costs as much as its rows
        (lambda threads, slots: slots / threads + 8, (2, 64)),  # each step has a fixed cost, too
        (lambda _, slots: slots, (2, 32)),  # the CPUs share their arithmetic units: threads neither help nor harm
        (lambda threads, slots: slots * threads, (1, 16)),  # the threads slow each other down
        (lambda threads, slots: slots / threads + 1, (2, 32)),  # a small gain may be noise
    ],
)
def test_the_rule_gives_way_to_what_is_clearly_faster(
    cost: Callable[[Callable[[int, int], float]], None], of: Callable[[int, int], float], taken: tuple[int, int]
) -> None:
    cost(of)
    place = calibrate(tiny_model(), RULE, threads=True, slots=True)
    assert (place.threads, place.slots) == taken


def test_what_a_flag_says_stays(cost: Callable[[Callable[[int, int], float]], None]) -> None:
    cost(lambda threads, slots: slots * threads + 8)
    assert calibrate(tiny_model(), RULE, threads=True, slots=False).slots == 32
    assert calibrate(tiny_model(), RULE, threads=False, slots=True).threads == 2
    assert calibrate(tiny_model(), RULE, threads=False, slots=False) == RULE


def test_an_engine_that_measures_takes_one_of_the_candidates(checkpoint: Path) -> None:
    settings = EngineSettings(model=[checkpoint], device="cpu", threads=2)
    place = Engine(settings, calibrated=True).placement
    assert place.threads == 2
    assert place.slots in (32, 64)
