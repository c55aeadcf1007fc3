"""Which device an engine computes on, with which dtype, slots and threads, and how much memory is left there."""

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
"""The CPU time that a container may take (cgroup v2): a quota and a period, or "max" and a period."""

_STATM = Path("/proc/self/statm")
"""The pages of this process, and how many of them are resident (Linux)."""

_log = logging.getLogger("gram")


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of the activations, the slots of each model, and the computing threads of a CPU."""

    device: torch.device
    dtype: torch.dtype
    slots: int
    threads: int

    @property
    def where(self) -> str:
        """The device, in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "one CPU thread" if self.threads == 1 else f"{self.threads} CPU threads"


def resolve(settings: EngineSettings, number: int = 0) -> Placement:
    """The placement of the engine with this number. Of several GPUs each engine has its own.

    It logs a warning if it can't have what the settings ask for. Raises DeviceError if the device does not exist or does not
    work.
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
    # Two tiles for each thread. More are no faster; with one, a single extra trajectory would double the time of a step.
    return Placement(device, dtype, settings.slots or 2 * CPU_TILE * threads, threads)


def choose_device(wanted: Device) -> torch.device:
    """A CUDA GPU, if there is one and the CPU is not asked for. Raises DeviceError if the wanted device does not exist."""
    gpu = torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise DeviceError("there is no CUDA device; use --device cpu")
    return torch.device("cuda" if gpu and wanted != "cpu" else "cpu")


def num_devices(device: torch.device) -> int:
    """How many devices of this kind the machine has. All CPUs are one device, whose cores are threads of one engine."""
    return torch.cuda.device_count() if device.type == "cuda" else 1


def memory_bytes(device: torch.device) -> int | None:
    """The memory that this process holds, in bytes: reserved by PyTorch on a GPU, otherwise resident. None if unknown."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:  # this system is not Linux
        return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch raised the error because the device, a GPU or a CPU, ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def trim() -> None:
    """Return freed memory that glibc's allocator keeps to the system, in milliseconds; without glibc it does nothing.

    If models of several sizes take turns, that memory grows for hours, and looks like a leak.
    """
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)


def _fault(device: torch.device) -> str | None:
    """Why a GPU can't add two numbers (it is too old for this PyTorch, out of memory or in use). None if it can."""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return f"the GPU does not work ({reason})"
    return None


def _choose_dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    has_bfloat16 = multiplies_bfloat16(device)
    if wanted == "bfloat16" and not has_bfloat16:
        _log.warning("bfloat16 is not native on this %s: computing in float32", device.type)
    return torch.bfloat16 if has_bfloat16 and wanted != "float32" else torch.float32


def _usable_cpus() -> int:
    """The CPUs on which the process may run, but no more than the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return min(cpus, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # the process is not in a container, or the container has no quota
        return cpus
