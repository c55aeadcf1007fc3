"""Where and how to compute: every "auto" of the settings resolved against the machine."""

from dataclasses import dataclass

import torch

from server.settings import EngineSettings


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of its activations, and the number of slots."""

    device: torch.device
    dtype: torch.dtype
    slots: int


def resolve(settings: EngineSettings) -> Placement:
    """Raises ValueError for a device that is not there."""
    gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not gpu:
        raise ValueError("no CUDA device is to be found; use --device cpu")
    device = "cuda" if gpu and settings.device != "cpu" else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" or _cpu_multiplies_bfloat16() else "float32"
    return Placement(torch.device(device), getattr(torch, dtype), settings.slots or (256 if gpu else 32))


def _cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 products have instructions of their own; emulated ones are slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
