"""Sudoku: fill in digits so that no row, column or box has one twice.

Reading, writing and checking need numpy alone. What needs the compiled solver imports it on first use.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import MOST_COUNTED, PuzzleError, Task, Tokens
from gram.models.tasks.sudoku.codec import BLANK, Codec, box_rows
from gram.models.tasks.sudoku.files import FILES, find_puzzles, only_puzzle
from gram.models.tasks.sudoku.pairs import CLIMB_IMAGES, PairPool, add_clues
from gram.models.tasks.symmetry import Symmetries

if TYPE_CHECKING:
    from gram.models.tasks.sudoku.solver import Solver

DATA = Path(__file__).parents[1] / "data"
_GUESSES = {0: "0", 4: "1-4", 19: "5-19", math.inf: "20+"}
_SOLUTIONS = {1: "1", 10: "2-10", MOST_COUNTED - 1: f"11-{MOST_COUNTED - 1}", MOST_COUNTED: f"{MOST_COUNTED}+"}
"""The bands in which evaluation counts puzzles, by the most guesses or solutions in each."""
_COUNT_GUESSES, _CLUE_GUESSES, _SEARCH_GUESSES = 100_000, 1_000, 10_000_000
"""Guesses after which the counting of a puzzle's solutions ends, and the look for a clue that is wrong: a tenth of a second.
And those after which the search for a first solution ends: one to three seconds, which hardly any puzzle takes."""


class Kind(NamedTuple):
    """What differs between the sizes."""

    box_rows: int
    most_clues: int
    """Training puzzles have clues added up to this many."""
    pool_size: int
    """The number of minimal puzzles that training draws from. 4x4 has all of them."""
    hard_share: float
    """The share of hard puzzles among the training puzzles with one solution."""
    climbed_size: int
    """The number of puzzles from climbs that training draws from: a third of its hard ones are their images."""
    example: str
    evaluation_depth: int = Task.evaluation_depth


KINDS = {
    4: Kind(2, 10, 0, 0.0, 0, "..4./.1../.2../3..."),
    6: Kind(2, 20, 50_000, 0.0, 0, "2....1/...3../.1..4./.5..2./..3.../6....5"),
    9: Kind(
        box_rows=3,
        most_clues=36,
        pool_size=300_000,
        hard_share=1 / 2,
        climbed_size=2_000,
        evaluation_depth=128,
        example="..76....2/..5.8.1.4/.8......./1.6..7.../.28...46./...1..8.7/.......9./5.9.4.2../6....17..",
    ),
}


class Sudoku(Task):
    """n x n Sudoku for n of 4, 6 (boxes of 2 rows and 3 columns) or 9. Token 0 is a blank, 1 to n are the digits.

    Two fifths of the training puzzles are random cells of random boards, from none to all but one: many have many solutions. A
    quarter of these are the blank board, from which the model generates.

    The other three fifths have one solution. For n = 9 half of these are hard, a third of them extremely so; of the rest, half
    are minimal (none of their clues can go) and half are minimal ones with clues added back.

    Puzzles are split by a hash of their symmetry class: an eighth of the classes is held out. Puzzles of fewer than
    `least_split` clues have so few classes that training sees all of them.

    `solutions` gives at most MOST_COUNTED: a 6x6 or 9x9 board without clues has millions and more.
    """

    files = FILES
    held_out_every = 8
    least_split = 4
    emptied_share, blank_share = 0.4, 0.25

    def __init__(self, size: int, paper: dict[str, float]) -> None:
        kind = KINDS[size]
        box = f"{kind.box_rows}x{size // kind.box_rows} box"
        self.size = size
        self.codec = Codec(size, kind.box_rows)
        self.units = self.codec.units
        self.lists_solutions = size == 4
        self.name = f"sudoku-{size}x{size}"
        self.title = f"{size}x{size} Sudoku: fill in the digits 1 to {size} so that no row, column or {box} has one twice."
        self.seq_len = size * size
        self.vocab_size = size + 1
        self.paper = paper
        self.formats = self.codec.formats
        self.examples = self.codec.spellings(kind.example)
        self.evaluation_depth = kind.evaluation_depth
        self.pool_size, self.climbed_size = kind.pool_size, kind.climbed_size
        self.most_clues, self.hard_share = kind.most_clues, kind.hard_share
        box_rows, box_columns = self.codec.box_rows, self.codec.box_columns
        lines = (size // box_rows, size, size // box_columns, size)
        self._draws = (size, *lines, *([1] if box_rows == box_columns else []))
        self.num_draws = sum(self._draws)

    @property
    def blank(self) -> Tokens:
        return np.full(self.seq_len, BLANK)

    @cached_property
    def boards(self) -> Tokens | None:
        return self.solutions(self.blank) if self.lists_solutions else None

    @property
    def board_entropy(self) -> float:
        """The entropy of n equally frequent digits, since the digits are interchangeable."""
        return math.log(self.size)

    def parse(self, puzzle: object) -> Tokens:
        match puzzle:
            case {"box_rows": self.codec.box_rows, "board": board, **others} if not others:
                puzzle = board
            case str():
                puzzle = only_puzzle(self.codec, puzzle)
        try:
            return self.codec.parse(puzzle)
        except PuzzleError as error:
            error.add(self._other_boxes(puzzle))
            raise

    def posed(self, puzzle: object) -> tuple[Task, Tokens]:
        """With boxes of 3 rows and 2 columns, if the writer says so."""
        rows = box_rows(puzzle)
        if rows in (None, self.codec.box_rows):
            return self, self.parse(puzzle)
        if rows != self.codec.box_columns:
            raise PuzzleError(f"boxes of {rows} rows don't fit {self.size}x{self.size}; write {self.codec.box_rows}")
        view = copy(self)
        view.codec = self.codec.transposed
        return view, view.parse(puzzle)

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        return ((found.number, found.text) for found in find_puzzles(self.codec, lines))

    def text(self, tokens: Tokens) -> str:
        return self.codec.text(tokens)

    def grid(self, tokens: Tokens) -> list[list[int]]:
        return self.codec.grid(tokens)

    def _other_boxes(self, puzzle: object) -> str:
        """What to tell a person whose puzzle has no solution, if as it is written it has one with the other boxes."""
        rows = self.codec.box_columns
        if rows != self.codec.box_rows:
            with suppress(PuzzleError):
                if self.solver.count(self.codec.transposed.parse(puzzle), 1, _CLUE_GUESSES):
                    return f'; with boxes of {rows} rows it has one: write {{"box_rows": {rows}, "board": ...}}'
        return ""

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        kept = np.all((puzzle == BLANK) | (puzzle == answer))
        return bool(kept and np.all(np.sort(answer[self.units], axis=1) == np.arange(1, self.size + 1)))

    # --- solving

    @cached_property
    def solver(self) -> "Solver":
        """The compiled solver; its first use compiles it."""
        from gram.models.tasks.sudoku.solver import Solver

        return Solver(self.units, KINDS[self.size].box_rows)

    def solutions(self, puzzle: Tokens) -> Tokens:
        return self.solver.solve(puzzle, MOST_COUNTED)

    def count_solutions(self, puzzle: Tokens) -> int | None:
        counted = self.solver.count(puzzle, MOST_COUNTED, _COUNT_GUESSES)
        if counted is None and self.solver.count(puzzle, 1, _SEARCH_GUESSES) == 0:
            return 0
        return counted

    def contradiction(self, puzzle: Tokens) -> str:
        """Names a clue without which the puzzle has a solution, if one is found: it may have been mistyped."""
        said = super().contradiction(puzzle)
        for cell in np.flatnonzero(puzzle != BLANK):
            others = np.where(np.arange(self.seq_len) == cell, BLANK, puzzle)
            if self.solver.count(others, 1, _CLUE_GUESSES):
                said += f"; without the {puzzle[cell]} in {self.codec.place(int(cell))}, for example, it has one"
                break
        return said + self._other_boxes(self.grid(puzzle))

    def is_ambiguous(self, puzzles: Tokens) -> NDArray[np.bool_]:
        return np.array([len(self.solver.solve(puzzle, 2)) > 1 for puzzle in puzzles], dtype=bool)

    def nearest_solution(self, puzzle: Tokens, log_p: NDArray[np.float64]) -> Tokens:
        """Greedily, if there are many: digits are kept in the order of their probability, each if the rest can be filled."""
        if self.lists_solutions:
            return super().nearest_solution(puzzle, log_p)
        wishes = np.argsort(-log_p[:, 1:], axis=None, kind="stable")
        cells, digits = np.unravel_index(wishes, (self.seq_len, self.size))
        return self.solver.complete(puzzle, cells, digits + 1)

    def strata(self, puzzle: Tokens) -> dict[str, str]:
        clues, guesses = int(np.sum(puzzle != BLANK)), self.solver.guesses(puzzle)
        width = self.size // 3  # the larger the board, the more numbers of clues there are
        least = clues - (clues - 1) % width
        return {
            "clues": f"{least}-{least + width - 1}" if width > 1 and clues else f"{clues}",
            "guesses": next(band for most, band in _GUESSES.items() if guesses <= most),
            "solutions": next(band for most, band in _SOLUTIONS.items() if len(self.solutions(puzzle)) <= most),
        }

    def cell_orders(self, seed: int, count: int) -> Tokens:
        """Random orders of the cells [count, N], those of symmetric images: puzzle[orders] are images of a puzzle [N]."""
        draws = np.random.default_rng(seed).random((count, self.num_draws))
        return self.symmetries(np.tile(self.blank, (count, 1)), draws).cells

    # --- training pairs and the held-out split

    @cached_property
    def pairs(self) -> PairPool:
        """The pool from which training pairs are drawn."""
        return PairPool(
            self.name,
            self.solver,
            self.boards,
            self.pool_size,
            self.hard_share,
            self.most_clues,
            self.climbed_size,
            self.cell_orders(0, CLIMB_IMAGES),
        )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        puzzles, answers = self._draw(rng, count)
        while len(refused := np.flatnonzero(self.is_held_out(puzzles))):
            puzzles[refused], answers[refused] = self._draw(rng, len(refused))
        return puzzles, answers

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Images of pairs [count, N] of the training distribution, before the held-out puzzles are refused."""
        images = self.images(rng, np.stack(self.pairs.draw(rng, count), axis=1))
        puzzles, boards = images[:, 0], images[:, 1]
        emptied = np.flatnonzero(rng.random(count) < self.emptied_share)
        boards[emptied] = self.random_boards(rng, len(emptied))
        clues = rng.integers(self.seq_len, size=len(emptied)) * (rng.random(len(emptied)) >= self.blank_share)
        puzzles[emptied] = add_clues(rng, np.zeros_like(boards[emptied]), boards[emptied], clues)
        return puzzles, boards

    def random_boards(self, rng: np.random.Generator, count: int) -> Tokens:
        """Draw full boards [count, N], uniform over all that exist (9x9: within 5 % of the probability)."""
        if self.boards is None:
            return self.solver.random_boards(int(rng.integers(2**63)), count)
        return self.boards[rng.integers(len(self.boards), size=count)]

    def is_held_out(self, puzzles: Tokens) -> NDArray[np.bool_]:
        """Whether puzzles [..., N] belong to a held-out symmetry class -> [...]."""
        # The remainder could be any other; of the 36 classes of minimal 4x4 puzzles this one holds out a fair part.
        by_class = self.solver.class_hashes(puzzles) % np.uint64(self.held_out_every) == np.uint64(3)
        held_out: NDArray[np.bool_] = by_class & (np.sum(puzzles != BLANK, axis=-1) >= self.least_split)
        return held_out

    @cached_property
    def held_out(self) -> Tokens:
        return next(iter(self.test_sets.values()))

    @cached_property
    def test_sets(self) -> dict[str, Tokens]:
        """The bundled sets, which make_held_out.py has written."""
        sets: dict[str, list[str]] = {}
        for line in (DATA / f"{self.name}.txt").read_text().splitlines():
            if line.startswith("#"):
                puzzles = sets.setdefault(line[1:].split(":")[0].strip(), [])
            else:
                puzzles.append(line.replace(".", str(BLANK)))
        return {name: np.array([list(puzzle) for puzzle in puzzles]).astype(np.int64) for name, puzzles in sets.items()}

    # --- symmetries

    def images(self, rng: np.random.Generator, boards: Tokens) -> Tokens:
        """Random symmetric images of boards [B, K, N]: one symmetry for each of the B, which all its K boards share."""
        draws = np.concatenate([rng.random((len(boards), count)) for count in self._draws], axis=1)
        symmetries = self.symmetries(boards[:, 0], draws)
        return np.stack([symmetries.image(board) for board in boards.swapaxes(0, 1)], axis=1)

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:  # noqa: ARG002
        """Rename the digits, and reorder the bands, the rows in a band, the stacks and the columns in a stack.

        Where boxes are square, the board may be transposed, too.
        """
        digits, bands, rows, stacks, columns, *mirrored = np.split(draws, np.cumsum(self._draws)[:-1], axis=1)
        symbols = np.concatenate([np.full((len(draws), 1), BLANK), digits.argsort(1) + 1], axis=1)
        cells = _line_order(bands, rows)[:, :, None] * self.size + _line_order(stacks, columns)[:, None, :]
        if mirrored:
            cells = np.where(mirrored[0][:, :, None] < 0.5, cells, cells.swapaxes(1, 2))
        return Symmetries(cells.reshape(len(draws), self.seq_len), symbols)


def _line_order(bands: NDArray[np.float64], lines: NDArray[np.float64]) -> Tokens:
    """Random orders of rows or columns [B, n], from draws for the bands or stacks [B, m] and for their lines [B, n]."""
    within = lines.reshape(*bands.shape, -1).argsort(2)
    order: Tokens = bands.argsort(1)[:, :, None] * within.shape[2] + within
    return order.reshape(lines.shape)
