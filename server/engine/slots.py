"""The slot pool: the resident tensors of the running trajectories. It knows rows, not requests."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gram.kernels.readout import Readout
from gram.models.network import GRAM, State
from gram.models.temperature import LONGEST, Temperature, by_step

_FOREVER = 2**31
"""Steps that no trajectory makes."""


class Start(NamedTuple):
    """A trajectory to start in a slot: its puzzle as bytes, a symbol each, what keys its noise, how long it may run, and
    whether it is to see an image of the puzzle.
    """

    slot: int
    puzzle: bytes
    seed: int
    trajectory: int
    temperature: Temperature
    max_steps: int = _FOREVER
    symmetries: bool = False


@dataclass
class _Encoded:
    """A puzzle in the pool: its place in e_x and how many rows read it."""

    place: int
    readers: int = 0


class SlotPool:
    """Memory for `num_slots` trajectories, allocated once; the live rows are a dense prefix of the tensors.

    A slot is a stable handle; the row behind it moves when a row before the last is released. Rows:
    h, l, e_x [S, L, D]; temperatures float32 [S, LONGEST], of the first steps; keys int64 [S, 5], whose columns are puzzle
    (the row's place in e_x), seed, trajectory, transition and last; report uint8 [S, ...], what the last step showed. S is
    num_slots rounded up to whole tiles, so that the last tile has rows to run over.
    Rows that are not live hold finite values, whose results nobody reads: a step runs over those of the last tile.
    """

    def __init__(self, model: GRAM, num_slots: int, tile: int, device: torch.device) -> None:
        self.num_slots = num_slots
        rows = -(-num_slots // tile) * tile
        self.live = 0
        self.state: State = model.initial_state(rows)
        self._initial = model.initial_state(1)
        self.e_x = torch.zeros_like(self.state.h)
        self.keys = torch.zeros(rows, 5, dtype=torch.int64, device=device)
        self.temperatures = torch.ones(rows, LONGEST, device=device)
        # A row's four numbers and its answer, up to a multiple of 4 bytes: in one tensor, so that one copy takes all of it.
        self.report = torch.zeros(rows, 16 + -(-model.config.seq_len // 4) * 4, dtype=torch.uint8, device=device)
        self._row_of: dict[int, int] = {}
        self._slot_of: list[int] = []
        self._key_of: dict[int, bytes] = {}
        self._encoded: dict[bytes, _Encoded] = {}
        self._free_places = list(range(rows))
        self._model = model

    @property
    def slots(self) -> list[int]:
        """The live slots in the order of their rows."""
        return self._slot_of

    @property
    def puzzle(self) -> Tensor:
        """Each row's place in e_x [S]."""
        return self.keys[:, 0]

    @property
    def seed(self) -> Tensor:
        """Each row's seed [S]."""
        return self.keys[:, 1]

    @property
    def trajectory(self) -> Tensor:
        """Each row's index in its request [S]."""
        return self.keys[:, 2]

    @property
    def transition(self) -> Tensor:
        """The transitions that each row has made [S]."""
        return self.keys[:, 3]

    @property
    def last(self) -> Tensor:
        """The transitions after which each row's trajectory ends [S]."""
        return self.keys[:, 4]

    def temperature(self, rows: slice) -> Tensor:
        """That of the step which these rows make next [rows]."""
        made = self.transition[rows] // self._model.config.transitions
        return self.temperatures[rows].gather(1, made.clamp(max=LONGEST - 1)[:, None]).squeeze(1)

    def shown(self, report: Tensor) -> Readout:
        """The parts of `report`, or of a copy of it."""
        return Readout(report[:, :16].view(torch.float32), report[:, 16 : 16 + self._model.config.seq_len])

    def place(self, starts: Sequence[Start]) -> None:
        """Start trajectories from z_0, all with one write. A puzzle already in the pool is not encoded again."""
        if not starts:
            return
        new: list[tuple[int, bytes]] = []
        keys = []
        transitions = self._model.config.transitions
        for slot, puzzle, seed, trajectory, _, max_steps, _ in starts:
            if slot in self._row_of:
                raise ValueError(f"slot {slot} is taken")
            encoded = self._encoded.get(puzzle)
            if encoded is None:
                encoded = self._encoded[puzzle] = _Encoded(self._free_places.pop())
                new.append((encoded.place, puzzle))
            encoded.readers += 1
            self._row_of[slot] = len(self._slot_of)
            self._slot_of.append(slot)
            self._key_of[slot] = puzzle
            keys.append((encoded.place, seed, trajectory, 0, min(max_steps, _FOREVER) * transitions))
        if new:
            places = self._upload([place for place, _ in new])
            self.e_x[places] = self._model.encode(self._upload([list(puzzle) for _, puzzle in new]))
        rows = slice(self.live, len(self._slot_of))
        self.live = rows.stop
        self.state.h[rows], self.state.l[rows] = self._initial
        self.keys[rows] = self._upload(keys)
        self.temperatures[rows] = self._upload([by_step(start.temperature) for start in starts])

    def release(self, slots: Collection[int]) -> None:
        """End the trajectories in these slots; the last live rows move into their places."""
        if not slots:
            return
        released = {self._row_of.pop(slot) for slot in slots}
        for slot in slots:
            key = self._key_of.pop(slot)
            encoded = self._encoded[key]
            encoded.readers -= 1
            if not encoded.readers:
                self._free_places.append(encoded.place)
                del self._encoded[key]
        end, self.live = self.live, self.live - len(released)
        holes = sorted(row for row in released if row < self.live)
        moved = [row for row in range(self.live, end) if row not in released]
        for hole, row in zip(holes, moved, strict=True):
            slot = self._slot_of[row]
            self._slot_of[hole] = slot
            self._row_of[slot] = hole
        del self._slot_of[self.live :]
        tensors = (*self.state, self.keys, self.temperatures)
        if holes:
            to, source = self._upload([holes, moved])
            for tensor in tensors:
                tensor[to] = tensor[source]
        # A row left behind may hold values that are not finite; z_0 keeps them out of the next tile's arithmetic.
        self.state.h[self.live : end], self.state.l[self.live : end] = self._initial

    def clear(self) -> None:
        """End all trajectories, also where an error has cut `place` or `release` off. Takes no memory."""
        self.live = 0
        self._row_of.clear()
        self._slot_of.clear()
        self._key_of.clear()
        self._encoded.clear()
        self._free_places = list(range(len(self.report)))
        self.state.h[:], self.state.l[:] = self._initial

    def _upload(self, numbers: Sequence[Any]) -> Tensor:
        """On the device. From pinned memory, so that the copy joins the GPU's queue and the host does not wait for its turn."""
        device = self.keys.device
        return torch.tensor(numbers, pin_memory=device.type == "cuda").to(device, non_blocking=True)
