"""The slot pool: the tensors that hold the running trajectories. It knows slots and rows, but no requests."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from gram.kernels.noise import NoiseKey
from gram.kernels.readout import Readout
from gram.models.network import GRAM, State
from gram.models.perturbation import Perturbation
from gram.models.temperature import MAX_SCHEDULE, Temperature, padded_schedule
from gram.server.engine.messages import NEVER_HALT

_FOREVER = 2**31
"""More steps than any trajectory makes."""


class Start(msgspec.Struct, frozen=True):
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
        self._puzzle_of: dict[int, bytes] = {}
        self._encoded: dict[bytes, _Encoded] = {}
        self._free_places = list(range(rows))
        self._model = model

    @property
    def slots(self) -> list[int]:
        """The live slots in the order of their rows."""
        return self._slot_of

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

    def place(self, starts: Sequence[Start]) -> None:
        """Start trajectories from z_0, all of them with one write. A puzzle that is in the pool is not encoded again."""
        if not starts:
            return
        new: list[tuple[int, bytes]] = []
        columns = []
        transitions = self._model.config.transitions
        for start in starts:
            slot, puzzle = start.slot, start.puzzle
            if slot in self._row_of:
                raise ValueError(f"slot {slot} is taken")
            encoded = self._encoded.get(puzzle)
            if encoded is None:
                encoded = self._encoded[puzzle] = _Encoded(self._free_places.pop())
                new.append((encoded.place, puzzle))
            encoded.readers += 1
            self._row_of[slot] = len(self._slot_of)
            self._slot_of.append(slot)
            self._puzzle_of[slot] = puzzle
            columns.append((encoded.place, start.seed, start.index, 0, min(start.max_steps, _FOREVER) * transitions))
        if new:
            places = self._upload([place for place, _ in new])
            self.e_x[places] = self._model.encode(self._upload([list(puzzle) for _, puzzle in new]))
        rows = slice(self.live, len(self._slot_of))
        self.live = rows.stop
        self.state.h[rows], self.state.l[rows] = self._initial
        self.columns[rows] = self._upload(columns)
        self.sampling[rows] = self._upload([_sampling(start) for start in starts])

    def release(self, slots: Collection[int]) -> None:
        """End the trajectories in these slots; the last live rows move into their places."""
        if not slots:
            return
        released = {self._row_of.pop(slot) for slot in slots}
        for slot in slots:
            puzzle = self._puzzle_of.pop(slot)
            encoded = self._encoded[puzzle]
            encoded.readers -= 1
            if not encoded.readers:
                self._free_places.append(encoded.place)
                del self._encoded[puzzle]
        end, self.live = self.live, self.live - len(released)
        holes = sorted(row for row in released if row < self.live)
        moved = [row for row in range(self.live, end) if row not in released]
        for hole, row in zip(holes, moved, strict=True):
            slot = self._slot_of[row]
            self._slot_of[hole] = slot
            self._row_of[slot] = hole
        del self._slot_of[self.live :]
        tensors = (*self.state, self.columns, self.sampling)
        if holes:
            to, source = self._upload([holes, moved])
            for tensor in tensors:
                tensor[to] = tensor[source]
        # A released row may hold values that are not finite. z_0 keeps them out of the next step of its tile.
        self.state.h[self.live : end], self.state.l[self.live : end] = self._initial

    def clear(self) -> None:
        """End all trajectories, even after an error in the middle of `place` or `release`. It allocates nothing."""
        self.live = 0
        self._row_of.clear()
        self._slot_of.clear()
        self._puzzle_of.clear()
        self._encoded.clear()
        self._free_places = list(range(len(self.report)))
        self.state.h[:], self.state.l[:] = self._initial

    def _upload(self, numbers: Sequence[Any]) -> Tensor:
        """Copy numbers to the device. For a GPU they are in pinned memory, so that the host does not wait for the copy."""
        device = self.columns.device
        return torch.tensor(numbers, pin_memory=device.type == "cuda").to(device, non_blocking=True)


def _sampling(start: Start) -> list[float]:
    """A row of `SlotPool.sampling`."""
    high, low = start.perturbation.sigmas if start.perturbation else (0.0, 0.0)
    return [start.halt_threshold, high, low, *padded_schedule(start.temperature)]
