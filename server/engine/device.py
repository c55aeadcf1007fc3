"""Where and how to compute: every "auto" of the settings resolved against the machine."""

from dataclasses import dataclass

import torch

from server.settings import Device, EngineSettings


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of its activations, and the number of slots."""

    device: torch.device
    dtype: torch.dtype
    slots: int


def resolve(settings: EngineSettings) -> Placement:
    """Raises ValueError for a device that is not there."""
    device, dtype = choose_device(settings.device), settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" or _cpu_multiplies_bfloat16() else "float32"
    return Placement(device, getattr(torch, dtype), settings.slots or (256 if torch.cuda.is_available() else 32))


def choose_device(wanted: Device) -> torch.device:
    """A CUDA GPU if there is one and the CPU is not asked for. Raises ValueError for a device that is not there."""
    gpu = torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise ValueError("no CUDA device is to be found; use --device cpu")
    return torch.device("cuda" if gpu and wanted != "cpu" else "cpu")


def _cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 products have instructions of their own; emulated ones are slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
