"""How a model computes when it is served: chosen when it is loaded, and never changed, since each way rounds differently."""

import importlib
from typing import Literal

import torch

from gram.kernels.dispatch import forced, uses_triton
from gram.models.native import native_step
from gram.models.network import GRAM
from gram.models.packed import can_pack, pack

Kernels = Literal["AVX-512", "oneDNN", "Triton step", "Triton", "PyTorch"]
"""Who makes a supervision step: kernels/cpu, models/packed.py, kernels/gpu/step.py, the other kernels of that folder, each
between PyTorch's products, or PyTorch's own operations."""


@torch.inference_mode()
def prepare(model: GRAM, tile: int) -> Kernels:
    """Choose the fastest way to step a model on its device, and lay out its weights, in place. It can't be trained any more.

    tile: the rows of a step, where they share products.
    """
    if uses_triton(model.initial_h):
        fused = importlib.import_module("gram.models.fused")  # it needs Triton
        model.native = fused.fused_step(model)
        return "Triton step" if model.native else "Triton"
    if forced() == "torch":
        return "PyTorch"
    if step := native_step(model):
        model.native = step
        return "AVX-512"
    if can_pack(model):
        pack(model, tile)
        return "oneDNN"
    return "PyTorch"
