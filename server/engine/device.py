"""Where and how to compute: every "auto" of the settings resolved against the machine."""

import ctypes
import logging
import math
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from gram.models.precision import multiplies_bfloat16
from gram.server.engine.runner import CPU_TILE
from gram.server.settings import Device, DeviceError, Dtype, EngineSettings

GPU_SLOTS = 256

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds how much CPU time it may take (cgroup v2): a quota and a period, or "max" and a period."""

_STATM = Path("/proc/self/statm")
"""Where Linux says how many pages this process has, and how many of them are in memory."""

_log = logging.getLogger("gram")


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of its activations, the slots of each model, and the threads that compute if it is a CPU."""

    device: torch.device
    dtype: torch.dtype
    slots: int
    threads: int

    @property
    def where(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "one CPU thread" if self.threads == 1 else f"{self.threads} CPU threads"


def resolve(settings: EngineSettings, number: int = 0) -> Placement:
    """The placement of the engine of this number: of several GPUs it has its own.

    Raises DeviceError for a device that is not there or does not work; what it does without, it says in the log.
    """
    device = choose_device(settings.device)
    if device.type == "cuda":
        device = torch.device("cuda", number % torch.cuda.device_count())
    if device.type == "cuda" and (fault := _fault(device)):
        if settings.device == "cuda":
            raise DeviceError(f"{fault}; use --device cpu")
        _log.warning("%s: computing on the CPU", fault)
        device = torch.device("cpu")
    dtype = _choose_dtype(settings.dtype, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        return Placement(device, dtype, settings.slots or GPU_SLOTS, threads=1)
    threads = settings.threads or _usable_cpus()
    # Two tiles for each thread. More are no faster; with one, a trajectory too many would make a step twice as long.
    return Placement(device, dtype, settings.slots or 2 * CPU_TILE * threads, threads)


def choose_device(wanted: Device) -> torch.device:
    """A CUDA GPU if there is one and the CPU is not asked for. Raises DeviceError for one that is not there."""
    gpu = torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise DeviceError("no CUDA device is to be found; use --device cpu")
    return torch.device("cuda" if gpu and wanted != "cpu" else "cpu")


def num_devices(device: torch.device) -> int:
    """How many of its kind the machine has. Of CPUs that is one, whose cores are threads of one engine."""
    return torch.cuda.device_count() if device.type == "cuda" else 1


def memory_bytes(device: torch.device) -> int | None:
    """What this process holds: of a GPU's memory what PyTorch has taken, else what is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not on Linux
        return None


def trim() -> None:
    """Give the system the freed memory that glibc's allocator keeps: where models of several sizes take turns, that grows for
    hours, and looks like a leak. Takes milliseconds. Elsewhere than on glibc it does nothing.
    """
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)


def _fault(device: torch.device) -> str | None:
    """What ails a GPU that can't add two numbers: too old for this PyTorch, no memory left, held by another process."""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return f"the GPU does not work ({reason})"
    return None


def _choose_dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    has_bfloat16 = multiplies_bfloat16(device)
    if wanted == "bfloat16" and not has_bfloat16:
        _log.warning("this %s does not multiply in bfloat16: computing in float32", device.type)
    return torch.bfloat16 if has_bfloat16 and wanted != "float32" else torch.float32


def _usable_cpus() -> int:
    """Those on which the system lets the process run, but no more than its container's quota lets work at a time."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return min(cpus, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # not in a container, or one without a quota
        return cpus
