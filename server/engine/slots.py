"""The slot pool: the tensors that hold the running trajectories. It knows slots and rows, but no requests."""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.kernels.noise import NoiseKey
from gram.kernels.readout import Readout
from gram.models.network import GRAM, State
from gram.models.perturbation import Perturbation
from gram.models.temperature import MAX_SCHEDULE, Temperature, padded_schedule
from gram.server.engine.messages import NEVER_HALT

_FOREVER = 2**31
"""More steps than any trajectory makes."""


_COLUMNS = struct.Struct("=5q")
_SAMPLING = struct.Struct(f"={3 + MAX_SCHEDULE}f4x")
_STARTED = _COLUMNS.size + _SAMPLING.size
"""Bytes of what the device gets of a trajectory that starts, a multiple of 8."""


class Start(msgspec.Struct):
    """A trajectory to start in a slot.

    `puzzle`: its symbols, one byte each. `symmetries`: it sees an image of the puzzle. `halt_threshold`: it ends when its halt
    probability exceeds this.
    """

    slot: int
    puzzle: bytes
    seed: int
    index: int
    temperature: Temperature
    max_steps: int = _FOREVER
    symmetries: bool = False
    halt_threshold: float = NEVER_HALT
    perturbation: Perturbation | None = None


@dataclass
class _Encoded:
    """An encoded puzzle: its place in e_x, and the number of rows that read it."""

    puzzle: bytes
    place: int
    readers: int = 0


class SlotPool:
    """Memory for `num_slots` trajectories, allocated once. The live rows are always the first rows of the tensors.

    A slot is a stable handle; its row may move when other slots are released. The tensors, with S the number of slots rounded
    up to whole tiles:

    - state h and l, and e_x: [S, L, D];
    - columns: int64 [S, 5]: puzzle (the row's place in e_x), seed, index, transition and last;
    - sampling: float32 [S, 3 + MAX_SCHEDULE]: halt_threshold, the sigmas of h and l, and the temperatures of the first steps;
    - report: uint8 [S, ...], the readout of the last step.

    A step runs over all rows of the last tile. Rows that are not live hold finite values, and nobody reads their results.
    """

    def __init__(self, model: GRAM, num_slots: int, tile: int, device: torch.device) -> None:
        self.num_slots = num_slots
        rows = -(-num_slots // tile) * tile
        self.live = 0
        self.state: State = model.initial_state(rows)
        self._initial = model.initial_state(1)
        self.e_x = torch.zeros_like(self.state.h)
        self.columns = torch.zeros(rows, 5, dtype=torch.int64, device=device)
        self.sampling = torch.zeros(rows, 3 + MAX_SCHEDULE, device=device)
        # A row's four numbers and its answer, padded to a multiple of 4 bytes: one tensor, so that one copy brings all of it.
        self.report = torch.zeros(rows, 16 + -(-model.config.seq_len // 4) * 4, dtype=torch.uint8, device=device)
        self._row_of: dict[int, int] = {}
        self._slot_of: list[int] = []
        self._encoded_of: dict[int, _Encoded] = {}
        self._encoded: dict[bytes, _Encoded] = {}
        self._free_places = list(range(rows))
        self._model = model

    @property
    def slots(self) -> list[int]:
        """The live slots in the order of their rows."""
        return self._slot_of

    def rows(self, slots: Sequence[int]) -> list[int]:
        """The rows of live slots."""
        return [self._row_of[slot] for slot in slots]

    @property
    def puzzle(self) -> Tensor:
        """The place of each row's puzzle in e_x [S]."""
        return self.columns[:, 0]

    @property
    def seed(self) -> Tensor:
        """Each row's seed [S]."""
        return self.columns[:, 1]

    @property
    def index(self) -> Tensor:
        """Each trajectory's index in its request [S]."""
        return self.columns[:, 2]

    @property
    def transition(self) -> Tensor:
        """The transitions that each row has made [S]."""
        return self.columns[:, 3]

    @property
    def last(self) -> Tensor:
        """The transitions after which each row's trajectory ends at the latest [S]."""
        return self.columns[:, 4]

    @property
    def halt_threshold(self) -> Tensor:
        """The halt probability above which each row's trajectory ends [S]."""
        return self.sampling[:, 0]

    @property
    def sigmas(self) -> Tensor:
        """The standard deviations of what each row's h and l get before every step [S, 2]."""
        return self.sampling[:, 1:3]

    @property
    def temperatures(self) -> Tensor:
        """The temperatures of each row's first steps [S, MAX_SCHEDULE]."""
        return self.sampling[:, 3:]

    def noise_key(self, rows: slice) -> NoiseKey:
        """The noise key of the step which these rows make next. All but the temperature are views of the pool's tensors."""
        transition = self.transition[rows]
        made = transition // self._model.config.transitions
        temperature = self.temperatures[rows].gather(1, made.clamp(max=MAX_SCHEDULE - 1)[:, None]).squeeze(1)
        return NoiseKey(self.seed[rows], self.index[rows], transition, temperature)

    def readout(self, report: Tensor) -> Readout:
        """View rows of `self.report`, or of a copy of it, as a readout."""
        return Readout(report[:, :16].view(torch.float32), report[:, 16 : 16 + self._model.config.seq_len])

    @torch.inference_mode()
    def place(self, starts: Sequence[Start]) -> None:
        """Start trajectories from z_0, all of them with one write. A puzzle that is in the pool is not encoded again."""
        if not starts:
            return
        new: list[_Encoded] = []
        packed: list[bytes] = []
        transitions = self._model.config.transitions
        for start in starts:
            slot, puzzle = start.slot, start.puzzle
            if slot in self._row_of:
                raise ValueError(f"slot {slot} is taken")
            encoded = self._encoded.get(puzzle)
            if encoded is None:
                encoded = self._encoded[puzzle] = _Encoded(puzzle, self._free_places.pop())
                new.append(encoded)
            encoded.readers += 1
            self._row_of[slot] = len(self._slot_of)
            self._slot_of.append(slot)
            self._encoded_of[slot] = encoded
            last = min(start.max_steps, _FOREVER) * transitions
            packed += _COLUMNS.pack(encoded.place, start.seed, start.index, 0, last), _sampling(start)
        if new:
            self._encode(new)
        started = self._upload(np.frombuffer(bytearray().join(packed), np.uint8).reshape(len(starts), _STARTED))
        rows = slice(self.live, len(self._slot_of))
        self.live = rows.stop
        self.state.h[rows], self.state.l[rows] = self._initial
        self.columns[rows] = started[:, : _COLUMNS.size].view(torch.int64)
        self.sampling[rows] = started[:, _COLUMNS.size : -4].view(torch.float32)

    @torch.inference_mode()
    def release(self, slots: Collection[int]) -> None:
        """End the trajectories in these slots; the last live rows move into their places."""
        if not slots:
            return
        released = {self._row_of.pop(slot) for slot in slots}
        for slot in slots:
            encoded = self._encoded_of.pop(slot)
            encoded.readers -= 1
            if not encoded.readers:
                self._free_places.append(encoded.place)
                del self._encoded[encoded.puzzle]
        end, self.live = self.live, self.live - len(released)
        holes = sorted(row for row in released if row < self.live)
        moved = [row for row in range(self.live, end) if row not in released]
        for hole, row in zip(holes, moved, strict=True):
            slot = self._slot_of[row]
            self._slot_of[hole] = slot
            self._row_of[slot] = hole
        del self._slot_of[self.live :]
        if holes:
            moves = self._upload(np.array([holes, moved]))
            to, source = moves[0], moves[1]
            for tensor in (*self.state, self.columns, self.sampling):
                tensor.index_copy_(0, to, tensor.index_select(0, source))
        # A released row may hold values that are not finite. z_0 keeps them out of the next step of its tile.
        self.state.h[self.live : end], self.state.l[self.live : end] = self._initial

    def clear(self) -> None:
        """End all trajectories, even after an error in the middle of `place` or `release`. It allocates nothing."""
        self.live = 0
        self._row_of.clear()
        self._slot_of.clear()
        self._encoded_of.clear()
        self._encoded.clear()
        self._free_places = list(range(len(self.report)))
        self.state.h[:], self.state.l[:] = self._initial

    def _encode(self, puzzles: Sequence[_Encoded]) -> None:
        """Encode puzzles into their places."""
        tokens = np.frombuffer(b"".join([each.puzzle for each in puzzles]), np.uint8).reshape(len(puzzles), -1)
        numbers = self._upload(np.column_stack(([each.place for each in puzzles], tokens)))
        self.e_x.index_copy_(0, numbers[:, 0], self._model.encode(numbers[:, 1:]))

    def _upload(self, numbers: NDArray[Any]) -> Tensor:
        """Copy numbers to the device. For a GPU they are in pinned memory, so that the host does not wait for the copy."""
        device = self.columns.device
        tensor = torch.from_numpy(numbers)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _sampling(start: Start) -> bytes:
    """A row of `SlotPool.sampling`, packed."""
    heat = tuple(start.temperature) if isinstance(start.temperature, list) else start.temperature
    return _packed_sampling(start.halt_threshold, start.perturbation, heat)


@lru_cache(1024)
def _packed_sampling(halt_threshold: float, perturbation: Perturbation | None, heat: float | tuple[float, ...]) -> bytes:
    """It is remembered, since all trajectories of a request share it."""
    temperatures = padded_schedule([*heat] if isinstance(heat, tuple) else heat)
    return _SAMPLING.pack(halt_threshold, *(perturbation.sigmas if perturbation else (0.0, 0.0)), *temperatures)
