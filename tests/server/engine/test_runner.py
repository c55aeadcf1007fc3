"""How the runner tells from a readout which trajectories end, and how."""

import torch

from gram.kernels.readout import Readout
from gram.server.engine.messages import Ending
from gram.server.engine.runner import HALT_THRESHOLD, endings


def test_a_row_ends_as_its_readout_says() -> None:
    above, below, nan = 0.75, 0.25, torch.nan
    cases: dict[tuple[float, bool, bool], Ending | None] = {  # halt probability, finite, retires
        (below, True, False): None,
        (HALT_THRESHOLD, True, False): None,
        (above, True, True): Ending.HALTED,
        (below, True, True): Ending.DEPTH,
        (HALT_THRESHOLD, True, True): Ending.DEPTH,
        (above, False, True): Ending.NOT_FINITE,
        (nan, False, True): Ending.NOT_FINITE,
    }
    numbers = torch.tensor([[halt, 0.5, finite, retires] for halt, finite, retires in cases])
    assert endings(Readout(numbers, torch.zeros(len(cases), 4, dtype=torch.uint8))) == [*cases.values()]
