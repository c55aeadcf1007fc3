"""Where Triton's interpreter, which runs the kernels on a CPU with TRITON_INTERPRET=1, differs from a GPU.

It rounds float32 to bfloat16 towards zero, which the tests allow for, and tl.dot takes the bits of bfloat16 for integers.
"""

import os

import torch
from torch import Tensor


def interpreting() -> bool:
    """Whether kernels imported from now on are interpreted."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def dot_operand(x: Tensor) -> Tensor:
    """x, laid out as an operand of tl.dot. For the interpreter, bfloat16 is widened, which changes no product."""
    return x.float().contiguous() if interpreting() and x.dtype == torch.bfloat16 else x.contiguous()
