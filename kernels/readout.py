"""The readout: all that the engine learns of a row after a supervision step."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Readout(NamedTuple):
    """What a step showed of each row.

    numbers: float32 [B, 4], in one tensor since it goes to the host in one copy: the halt probability and the LPRM's
    score, both in [0, 1]; whether the state is finite and whether the row retires, both 0 or 1.
    answers: uint8 [B, N], the decoded symbols.
    """

    numbers: Tensor
    answers: Tensor


def readout(
    h: Tensor,
    low: Tensor,
    heads_weight: Tensor,
    heads_bias: Tensor,
    decoder_weight: Tensor,
    steps: Tensor,
    max_steps: Tensor,
    *,
    num_registers: int,
    halt_threshold: float,
) -> Readout:
    """Read the halt head (App. A.1), the LPRM (App. A.2, Eq. 14), the decoder and the retirement rule off the state.

    (halt, value) = sigmoid(W h_0 + b) at register 0, in float32; answer = argmax over the symbols of W_dec h at each puzzle
    position, the first of equals. A row retires when its halt probability exceeds `halt_threshold`, when it has made
    `max_steps`, or when a number of its state is not finite; then its score and answer mean nothing.

    h, low: [B, L, D], of one dtype. heads_weight: float32 [2, D], the halt head first; heads_bias: float32 [2].
    decoder_weight: [V, D], V <= 256. steps (made, this one included) and max_steps: integers [B]. N = L - num_registers.
    """
    # Summed row by row: of so narrow a matrix product some CPUs add up a row in another order elsewhere in the tile.
    logits = (h[:, :1].float() * heads_weight.float()).sum(-1) + heads_bias.float()
    probability = logits.sigmoid()
    # A sum is finite only if all its terms are.
    finite = (h.sum((1, 2), dtype=torch.float32) + low.sum((1, 2), dtype=torch.float32)).isfinite()
    goes_on = finite & (probability[:, 0] <= halt_threshold) & (steps < max_steps)
    numbers = torch.cat([probability, finite[:, None], ~goes_on[:, None]], dim=1)
    symbols = F.linear(h[:, num_registers:], decoder_weight.to(h.dtype)).argmax(-1)
    return Readout(numbers, symbols.to(torch.uint8))
