"""The slot pool: the resident tensors of the running trajectories. It knows rows, not requests."""

from dataclasses import dataclass

import torch

from models.gram import GRAM, State


@dataclass
class _Encoded:
    """A puzzle in the pool: its place in e_x and how many rows read it."""

    place: int
    readers: int = 0


class SlotPool:
    """Memory for `num_slots` trajectories, allocated once; the live rows are a dense prefix of the tensors.

    A slot is a stable handle; the row behind it moves when a row before the last is released. Rows:
    h, l, e_x [S, L, D]; puzzle (the row's place in e_x), seed, trajectory, transition int64 [S]; temperature float32 [S].
    S is num_slots rounded up to whole tiles, so that the last tile has rows to run over.
    """

    def __init__(self, model: GRAM, num_slots: int, tile: int, device: torch.device) -> None:
        self.num_slots = num_slots
        rows = -(-num_slots // tile) * tile
        self.live = 0
        # Rows not live yet hold z_0: finite values, whose results nobody reads.
        self.state: State = model.initial_state(rows)
        self._initial = model.initial_state(1)
        self.e_x = torch.zeros_like(self.state.h)
        self.puzzle = torch.zeros(rows, dtype=torch.int64, device=device)
        self.seed = torch.zeros_like(self.puzzle)
        self.trajectory = torch.zeros_like(self.puzzle)
        self.transition = torch.zeros_like(self.puzzle)
        self.temperature = torch.ones(rows, device=device)
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

    def place(self, slot: int, puzzle: bytes, seed: int, trajectory: int, temperature: float) -> None:
        """Start a trajectory in a slot from z_0. A puzzle already in the pool is not encoded again."""
        if slot in self._row_of:
            raise ValueError(f"slot {slot} is taken")
        encoded = self._encoded.get(puzzle)
        if encoded is None:
            encoded = self._encoded[puzzle] = _Encoded(self._free_places.pop())
            tokens = torch.tensor(list(puzzle), device=self.puzzle.device)
            self.e_x[encoded.place] = self._model.encode(tokens[None])[0]
        encoded.readers += 1
        row = self.live
        self.live += 1
        self._row_of[slot] = row
        self._slot_of.append(slot)
        self._key_of[slot] = puzzle
        self.state.h[row], self.state.l[row] = self._initial.h[0], self._initial.l[0]
        self.puzzle[row] = encoded.place
        self.seed[row] = seed
        self.trajectory[row] = trajectory
        self.transition[row] = 0
        self.temperature[row] = temperature

    def release(self, slot: int) -> None:
        """End the trajectory in a slot; the last live row moves into its place."""
        row = self._row_of.pop(slot)
        key = self._key_of.pop(slot)
        encoded = self._encoded[key]
        encoded.readers -= 1
        if not encoded.readers:
            self._free_places.append(encoded.place)
            del self._encoded[key]
        self.live -= 1
        last = self._slot_of.pop()
        if last != slot:
            self._slot_of[row] = last
            self._row_of[last] = row
            for tensor in (*self.state, self.puzzle, self.seed, self.trajectory, self.transition, self.temperature):
                tensor[row] = tensor[self.live]
        # A row left behind may hold values that are not finite; z_0 keeps them out of the next tile's arithmetic.
        self.state.h[self.live], self.state.l[self.live] = self._initial.h[0], self._initial.l[0]
