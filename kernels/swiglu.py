"""The activation of a SwiGLU."""

import torch.nn.functional as F
from torch import Tensor


def swiglu(gate_up: Tensor, dim: int = -1) -> Tensor:
    """silu(gate) * up, with gate the first half of `gate_up` along `dim` and up the second; silu(x) = x / (1 + exp(-x)).

    [..., 2H] -> [..., H] for the SwiGLU over channels, [B, 2M, D] -> [B, M, D] with dim=1 for the one over positions.
    """
    gate, up = gate_up.chunk(2, dim)
    return F.silu(gate) * up
