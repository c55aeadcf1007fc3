"""Training on several devices: torchrun starts a process for each, and they share every update."""

import atexit
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor


def _leave() -> None:
    """End the process group, and let gloo's threads finish.

    A thread that frees its last tensor needs the interpreter's lock. If it asks for it while the interpreter exits, it aborts a
    run that has succeeded.
    """
    dist.destroy_process_group()
    time.sleep(0.2)


@dataclass(frozen=True)
class Peers:
    """The processes of a run, each of which trains its part of the batch. A process alone exchanges nothing."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Self:
        """Join the processes that torchrun has started, or be alone."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress bar."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.count

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the tensors of all processes in the order of their ranks: [n, ...] each -> [count * n, ...]."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def part(self, tensor: Tensor) -> Tensor:
        """The inverse of `gather`: this process's part."""
        return tensor.chunk(self.count)[self.rank].clone()
