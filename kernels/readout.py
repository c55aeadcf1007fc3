"""The readout: everything that a supervision step shows of a row."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Readout(NamedTuple):
    """What a supervision step shows of each of B rows, on the device or on the host.

    numbers: float32 [B, 4], one tensor so that one copy brings it to the host; its columns are the properties below.
    answers: uint8 [B, N], the decoded symbols.
    """

    numbers: Tensor
    answers: Tensor

    @property
    def halt(self) -> Tensor:
        """The halt head's probability, float32 [B] in [0, 1]."""
        return self.numbers[:, 0]

    @property
    def score(self) -> Tensor:
        """The LPRM's score, float32 [B] in [0, 1]."""
        return self.numbers[:, 1]

    @property
    def finite(self) -> Tensor:
        """Whether every number of the row's state is finite, bool [B]."""
        return self.numbers[:, 2] > 0

    @property
    def retires(self) -> Tensor:
        """Whether the row ends with this step: it has halted, made its last step or lost its state; bool [B]."""
        return self.numbers[:, 3] > 0

    @property
    def halts(self) -> Tensor:
        """Whether the row's halt probability exceeds its threshold, bool [B]."""
        return self.numbers[:, 3] > 1


def readout(
    h: Tensor,
    low: Tensor,
    heads_weight: Tensor,
    heads_bias: Tensor,
    decoder_weight: Tensor,
    steps: Tensor,
    max_steps: Tensor,
    halt_threshold: Tensor,
    *,
    num_registers: int,
) -> Readout:
    """Read the halt head (App. A.1), the LPRM (App. A.2, Eq. 14) and the decoder off the state, and decide which rows end.

    (halt, score) = sigmoid(W h_0 + b) at register 0, in float32; answer = argmax over the symbols of W_dec h at each puzzle
    position, the first of equals. A row retires when its halt probability exceeds `halt_threshold`, when it has made
    `max_steps`, or when a number of its state is not finite; then its score and answer mean nothing.

    h, low: [B, L, D], of one dtype. heads_weight: float32 [2, D], the halt head first; heads_bias: float32 [2].
    decoder_weight: [V, D], V <= 256. steps (made, this one included) and max_steps: integers [B]. halt_threshold: float32
    [B]; no row exceeds 1. N = L - num_registers.
    """
    # Summed row by row: in so narrow a matrix product, some CPUs add a row up in another order elsewhere in the tile.
    logits = (h[:, :1].float() * heads_weight.float()).sum(-1) + heads_bias.float()
    probability = logits.sigmoid()
    # A sum is finite only if all its terms are.
    finite = (h.sum((1, 2), dtype=torch.float32) + low.sum((1, 2), dtype=torch.float32)).isfinite()
    halts = probability[:, 0] > halt_threshold
    ends = halts | ~finite | (steps >= max_steps)
    numbers = torch.cat([probability, finite[:, None], (ends.float() + halts)[:, None]], dim=1)
    symbols = F.linear(h[:, num_registers:], decoder_weight.to(h.dtype)).argmax(-1)
    return Readout(numbers, symbols.to(torch.uint8))
