"""How the runner tells from a readout which trajectories end, and how."""

import torch

from gram.kernels.readout import Readout
from gram.server.engine.messages import Ending
from gram.server.engine.runner import endings


def test_a_row_ends_as_its_readout_says() -> None:
    cases: dict[tuple[bool, int], Ending | None] = {  # finite, and 0 for a row that goes on, 2 for one that halts
        (True, 0): None,
        (True, 2): Ending.HALTED,
        (True, 1): Ending.DEPTH,
        (False, 2): Ending.NOT_FINITE,
        (False, 1): Ending.NOT_FINITE,
    }
    numbers = torch.tensor([[0.5, 0.5, finite, ends] for finite, ends in cases])
    assert endings(Readout(numbers, torch.zeros(len(cases), 4, dtype=torch.uint8))) == [*cases.values()]
