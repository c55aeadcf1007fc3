"""Sudoku: fill in digits so that no row, column or box has one twice.

Needs numpy alone to read, write and check; what needs the compiled solver imports it on first use. As a command it writes
the held-out puzzles that are bundled with it.
"""

import argparse
import itertools
import math
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.base import PuzzleError, Task, Tokens, cell_name
from gram.models.tasks.symmetry import Symmetries

if TYPE_CHECKING:
    from gram.models.tasks.sudoku_solver import Minimal, Solver

BLANK = 0
DATA = Path(__file__).parent / "data"
_BLANK_SYMBOLS = ".0_*"
_LINE_BREAKS = re.compile(r"[\r\n/]+")
_SEPARATORS = re.compile(r"[\s|,;\u2500-\u257f]+")  # the last are the box drawing characters
_RULER = set("-+=")
_POOL_SEED, _TEST_SEED = 0, 1
_GUESSES = {0: "0", 4: "1-4", 19: "5-19", math.inf: "20+"}
"""By the most guesses in it, each band in which evaluation counts puzzles."""


class _Kind(NamedTuple):
    """What differs between the sizes."""

    box_rows: int
    most_clues: int
    """Training puzzles have clues added up to this many."""
    pool_size: int
    """Minimal puzzles that training draws from; 4x4 has them all."""
    hard_share: float
    """Training puzzles that are hard."""
    example: str
    evaluation_depth: int = Task.evaluation_depth


_KINDS = {
    4: _Kind(2, 10, 0, 0.0, "..4./.1../.2../3..."),
    6: _Kind(2, 20, 50_000, 0.0, "2....1/...3../.1..4./.5..2./..3.../6....5"),
    9: _Kind(
        box_rows=3,
        most_clues=36,
        pool_size=300_000,
        hard_share=1 / 3,
        evaluation_depth=128,
        example="..76....2/..5.8.1.4/.8......./1.6..7.../.28...46./...1..8.7/.......9./5.9.4.2../6....17..",
    ),
}


class Sudoku(Task):
    """n x n Sudoku for n of 4, 6 (boxes of 2 rows and 3 columns) or 9. Token 0 is a blank, 1 to n are the digits.

    Puzzles are split by a hash of their symmetry class: an eighth of the classes is held out. Training sees minimal
    puzzles (none of their clues can go), minimal puzzles with clues added back and, for n = 9, hard ones, equally many
    of each. `solutions` gives at most `max_solutions`, though a clueless 6x6 or 9x9 board has millions and more.

    Hard means many guesses of the solver on the puzzle as it was made. Its images take another number: 17 on average,
    where those of any minimal puzzle take 4.
    """

    one_solution = True
    held_out_every = 8
    max_solutions = 1000
    hard_guesses = 20
    test_clues = range(22, 37)

    def __init__(self, size: int, paper: dict[str, float]) -> None:
        kind = _KINDS[size]
        self.size = size
        self.box_rows, self.box_columns = kind.box_rows, size // kind.box_rows
        self.most_clues, self.pool_size, self.hard_share = kind.most_clues, kind.pool_size, kind.hard_share
        self.name = f"sudoku-{size}x{size}"
        box = f"{self.box_rows}x{self.box_columns} box"
        self.title = f"{size}x{size} Sudoku: fill in the digits 1 to {size} so that no row, column or {box} has one twice."
        self.seq_len = size * size
        self.vocab_size = size + 1
        self.paper = paper
        lines = (size // self.box_rows, size, size // self.box_columns, size)
        self._draws = (size, *lines, *([1] if self.box_rows == self.box_columns else []))
        self.num_draws = sum(self._draws)
        self.evaluation_depth = kind.evaluation_depth
        cells = np.arange(self.seq_len).reshape(size, size)
        boxes = cells.reshape(size // self.box_rows, self.box_rows, size // self.box_columns, self.box_columns)
        self._units = np.concatenate([cells, cells.T, boxes.swapaxes(1, 2).reshape(size, size)])
        rows = kind.example.split("/")
        numbers: list[JsonValue] = [[0 if symbol == "." else int(symbol) for symbol in row] for row in rows]
        self.examples = ["\n".join(rows), [*rows], numbers]
        self.formats = [
            f"{self.seq_len} symbols in one text, 1 to {size} a digit and '.', '0', '_' or '*' a blank; between rows line "
            "breaks and '/' are ignored, and so are spaces, '|', ',' and whole lines of '-', '+' and '='",
            f"a list of {size} rows, each a text of {size} symbols",
            f"{size} lists of {size} numbers, 1 to {size} a digit and 0 or null a blank; texts of one symbol work too",
        ]

    @property
    def blank(self) -> Tokens:
        return np.full(self.seq_len, BLANK)

    @cached_property
    def boards(self) -> Tokens | None:
        return self.solutions(self.blank) if self.size == 4 else None

    @property
    def board_entropy(self) -> float:
        """That of n equally frequent digits, since the digits are interchangeable."""
        return math.log(self.size)

    # --- reading and writing

    def parse(self, puzzle: object) -> Tokens:
        match puzzle:
            case str():
                rows = self._text_rows(puzzle)
            case [*texts] if texts and all(isinstance(row, str) for row in texts):
                rows = [list(line) for text in texts for line in self._lines(str(text))]
            case [*lists] if lists and all(isinstance(row, list) for row in lists):
                rows = cast("list[list[object]]", lists)
            case _:
                raise PuzzleError("a puzzle is one of: " + "; ".join(self.formats))
        for i, row in enumerate(rows):
            if len(row) != self.size:
                raise PuzzleError(f"has {len(row)} symbols; write {self.size}", f"row {i + 1}")
        if len(rows) != self.size:
            raise PuzzleError(f"the puzzle has {len(rows)} rows; write {self.size}")
        digits = [self._digit(symbol, r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row)]
        tokens = np.array(digits, dtype=np.int64)
        self._refuse_repeats(tokens)
        return tokens

    def text(self, tokens: Tokens) -> str:
        return "\n".join("".join(str(digit) if digit else "." for digit in row) for row in self.grid(tokens))

    def grid(self, tokens: Tokens) -> list[list[int]]:
        rows: list[list[int]] = tokens.reshape(self.size, self.size).tolist()
        return rows

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        kept = np.all((puzzle == BLANK) | (puzzle == answer))
        return bool(kept and np.all(np.sort(answer[self._units], axis=1) == np.arange(1, self.size + 1)))

    def _text_rows(self, text: str) -> list[list[object]]:
        """The symbols of a text by rows: its lines where they are as many as rows, else every n symbols."""
        lines = self._lines(text)
        if len(lines) != self.size:
            symbols = "".join(lines)
            for i, symbol in enumerate(symbols[: self.seq_len]):
                self._digit(symbol, *divmod(i, self.size))
            if len(symbols) != self.seq_len:
                rows = f"{self.size} rows of {self.size}, {self.seq_len} in all"
                raise PuzzleError(f"the puzzle has {len(symbols)} symbols; write {rows}")
            lines = [symbols[i : i + self.size] for i in range(0, self.seq_len, self.size)]
        return [list(line) for line in lines]

    def _lines(self, text: str) -> list[str]:
        """The symbols of each line, without lines that have none and without rulers."""
        lines = (_SEPARATORS.sub("", line) for line in _LINE_BREAKS.split(text))
        return [line for line in lines if set(line) - _RULER]

    def _digit(self, symbol: object, row: int, column: int) -> int:
        place = cell_name(row, column)
        match symbol:
            case None:
                return BLANK
            case bool():
                raise PuzzleError(f"{symbol!r} is no number; write a digit from 1 to {self.size}, or 0 for a blank", place)
            case int() if 0 <= symbol <= self.size:
                return symbol
            case int() | float():
                raise PuzzleError(f"a number here is a digit from 1 to {self.size}, or 0 for a blank", place)
            case str() if len(symbol) == 1 and symbol in _BLANK_SYMBOLS:
                return BLANK
            case str() if len(symbol) == 1 and symbol in "123456789":
                if int(symbol) <= self.size:
                    return int(symbol)
                raise PuzzleError(f"{symbol} is too large; digits are 1 to {self.size}", place)
            case "-":
                raise PuzzleError("'-' draws rulers between rows; write '.' for a blank", place)
        raise PuzzleError(f"{_shown(symbol)} is neither a digit from 1 to {self.size} nor a blank ('.')", place)

    def _refuse_repeats(self, tokens: Tokens) -> None:
        for unit, digits in enumerate(tokens[self._units]):
            counts = np.bincount(digits, minlength=self.vocab_size)
            counts[BLANK] = 0
            if counts.max() > 1:
                amount = "two" if counts.max() == 2 else "several"
                raise PuzzleError(f"has {amount} {counts.argmax()}s; change or clear one", self._unit_name(unit))

    def _unit_name(self, unit: int) -> str:
        kind, index = divmod(unit, self.size)
        if kind < 2:
            return f"{('row', 'column')[kind]} {index + 1}"
        row, column = index // self.box_rows * self.box_rows, index % self.box_rows * self.box_columns
        return f"the box of rows {row + 1}-{row + self.box_rows}, columns {column + 1}-{column + self.box_columns}"

    # --- solving

    @cached_property
    def solver(self) -> "Solver":
        """The compiled solver; the first use of it compiles."""
        from gram.models.tasks.sudoku_solver import Solver

        return Solver(self._units, self.box_rows)

    def solutions(self, puzzle: Tokens) -> Tokens:
        return self.solver.solve(puzzle, self.max_solutions)

    def strata(self, puzzle: Tokens) -> dict[str, str]:
        clues, guesses = int(np.sum(puzzle != BLANK)), self.solver.guesses(puzzle)
        width = self.size // 3  # the larger the board, the more numbers of clues there are
        least = clues - (clues - 1) % width
        return {
            "clues": f"{least}-{least + width - 1}" if width > 1 else f"{least}",
            "guesses": next(band for most, band in _GUESSES.items() if guesses <= most),
        }

    # --- training pairs

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        puzzles, answers = self._draw(rng, count)
        while len(refused := np.flatnonzero(self.is_held_out(puzzles))):
            puzzles[refused], answers[refused] = self._draw(rng, len(refused))
        return puzzles, answers

    def sample_boards(self, rng: np.random.Generator, count: int) -> Tokens:
        if self.boards is None:
            return self.solver.random_boards(int(rng.integers(2**63)), count)
        return self.boards[rng.integers(len(self.boards), size=count)]

    def nearest_board(self, log_p: NDArray[np.float64]) -> Tokens:
        """Greedily: the digits are kept in the order of their probability, each with which the rest can still be filled."""
        wishes = np.argsort(-log_p[:, 1:], axis=None, kind="stable")
        cells, digits = np.unravel_index(wishes, (self.seq_len, self.size))
        return self.solver.complete(self.blank, cells, digits + 1)

    def is_held_out(self, puzzles: Tokens) -> NDArray[np.bool_]:
        """Whether puzzles [..., N] belong to a held-out symmetry class -> [...]."""
        # The remainder could be any other; of the 36 classes of minimal 4x4 puzzles this one holds out a fair part.
        held_out: NDArray[np.bool_] = self.solver.class_hashes(puzzles) % np.uint64(self.held_out_every) == np.uint64(3)
        return held_out

    def images(self, rng: np.random.Generator, boards: Tokens) -> Tokens:
        """Random symmetric images of boards [B, K, N]: for each of the B one symmetry, for all its K boards."""
        draws = np.concatenate([rng.random((len(boards), count)) for count in self._draws], axis=1)
        symmetries = self.symmetries(boards[:, 0], draws)
        return np.stack([symmetries.image(board) for board in boards.swapaxes(0, 1)], axis=1)

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:  # noqa: ARG002
        """Other names for the digits; the bands, the rows in a band, the stacks and their columns in another order; and, where
        boxes are square, the board transposed.
        """
        digits, bands, rows, stacks, columns, *mirrored = np.split(draws, np.cumsum(self._draws)[:-1], axis=1)
        symbols = np.concatenate([np.full((len(draws), 1), BLANK), digits.argsort(1) + 1], axis=1)
        cells = _line_order(bands, rows)[:, :, None] * self.size + _line_order(stacks, columns)[:, None, :]
        if mirrored:
            cells = np.where(mirrored[0][:, :, None] < 0.5, cells, cells.swapaxes(1, 2))
        return Symmetries(cells.reshape(len(draws), self.seq_len), symbols)

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Pairs [count, N] of the training distribution before the held-out puzzles are refused."""
        kind = rng.random(count)
        index = rng.integers(len(self._pool.puzzles), size=count)
        hard = np.flatnonzero(kind < self.hard_share)
        if len(hard):
            index[hard] = self._hard[rng.integers(len(self._hard), size=len(hard))]
        puzzles, boards = self._pool.puzzles[index].astype(np.int64), self._pool.boards[index].astype(np.int64)
        clues = np.sum(puzzles != BLANK, axis=1)
        more = kind > (1 + self.hard_share) / 2
        wanted = np.where(more, rng.integers(clues, self.most_clues, endpoint=True), clues)
        puzzles = add_clues(rng, puzzles, boards, wanted)
        images = self.images(rng, np.stack([puzzles, boards], axis=1))
        return images[:, 0], images[:, 1]

    @cached_property
    def _pool(self) -> "Minimal":
        """The minimal puzzles that training draws from, made on first use and the same in every process.

        They are kept as bytes where they are many.
        """
        from tqdm import tqdm

        from gram.models.tasks.sudoku_solver import CHUNK, Minimal

        if self.boards is not None:
            return self._all_minimal(self.boards)
        chunks = -(-self.pool_size // CHUNK)
        series = itertools.islice(self.solver.minimal_series(_POOL_SEED), chunks)
        bar = tqdm(series, desc=f"{self.name}: minimal puzzles", total=chunks, unit="puzzle", unit_scale=CHUNK)
        parts = [(puzzles.astype(np.uint8), boards.astype(np.uint8), guesses) for puzzles, boards, guesses in bar]
        return Minimal(*(np.concatenate(part)[: self.pool_size] for part in zip(*parts, strict=True)))

    @cached_property
    def _hard(self) -> Tokens:
        """The places of the hard puzzles in the pool."""
        return np.flatnonzero(self._pool.guesses >= self.hard_guesses)

    def _all_minimal(self, full: Tokens) -> "Minimal":
        """All minimal puzzles of a size as small as 4x4, of which `full` [n, N] are all boards.

        The cells in which another board agrees with this one don't single it out, nor do fewer; all other sets of cells do.
        """
        from gram.models.tasks.sudoku_solver import Minimal

        bits = 1 << np.arange(self.seq_len)
        puzzles, boards = [], []
        for board in full:
            unique = np.ones(1 << self.seq_len, dtype=bool)
            agreeing = (full == board) @ bits
            unique[agreeing[agreeing < len(unique) - 1]] = False
            for bit in bits:
                without, having = unique.reshape(-1, 2, bit).swapaxes(0, 1)
                without &= having
            minimal = unique.copy()
            for bit in bits:
                minimal.reshape(-1, 2, bit)[:, 1] &= ~unique.reshape(-1, 2, bit)[:, 0]
            clues = (np.flatnonzero(minimal)[:, None] & bits) > 0
            puzzles.append(board * clues)
            boards.append(np.broadcast_to(board, clues.shape))
        return Minimal(np.concatenate(puzzles), np.concatenate(boards), np.zeros(sum(map(len, puzzles)), dtype=np.int64))

    # --- held-out puzzles

    @cached_property
    def held_out(self) -> Tokens:
        return next(iter(self.test_sets.values()))

    @cached_property
    def test_sets(self) -> dict[str, Tokens]:
        sets: dict[str, list[str]] = {}
        for line in (DATA / f"{self.name}.txt").read_text().splitlines():
            if line.startswith("#"):
                puzzles = sets.setdefault(line[1:].split(":")[0].strip(), [])
            else:
                puzzles.append(line)
        return {name: np.stack([self.parse(puzzle) for puzzle in puzzles]) for name, puzzles in sets.items()}

    def make_test_sets(self) -> dict[str, tuple[int, Iterator[Tokens]]]:
        """What `test_sets` was made of: for each set the number of puzzles and a series that begins with them."""
        if self.size == 9:
            return {
                f"{self.test_clues[0]}-{self.test_clues[-1]} clues": (1000, self._held_out_by_clues()),
                "hard": (500, self._held_out_minimal(self.hard_guesses)),
            }
        return {"minimal": (1000, self._held_out_images() if self.size == 4 else self._held_out_minimal())}

    def _held_out_minimal(self, least_guesses: int = 0) -> Iterator[Tokens]:
        for puzzles, _, guesses in self.solver.minimal_series(_TEST_SEED):
            yield from puzzles[(guesses >= least_guesses) & self.is_held_out(puzzles)]

    def _held_out_by_clues(self) -> Iterator[Tokens]:
        """Puzzles of each number of clues in turn: minimal ones of no more, with clues added."""
        rng = np.random.default_rng(_TEST_SEED)
        series = self.solver.minimal_series(_TEST_SEED)
        pairs = ((puzzle, board) for chunk in series for puzzle, board in zip(chunk.puzzles, chunk.boards, strict=True))
        for clues in itertools.cycle(self.test_clues):
            for puzzle, board in pairs:
                if np.sum(puzzle != BLANK) <= clues:
                    wanted = add_clues(rng, puzzle[None], board[None], np.array([clues]))[0]
                    if self.is_held_out(wanted):
                        yield wanted
                        break

    def _held_out_images(self) -> Iterator[Tokens]:
        """Distinct puzzles of each held-out class in turn, for as long as the smallest class has them."""
        puzzles = self._pool.puzzles[self.is_held_out(self._pool.puzzles)]
        puzzles = np.random.default_rng(_TEST_SEED).permutation(puzzles)
        hashes = self.solver.class_hashes(puzzles)
        for images in zip(*(puzzles[hashes == one] for one in np.unique(hashes)), strict=False):
            yield from images


def add_clues(rng: np.random.Generator, puzzles: Tokens, boards: Tokens, clues: Tokens) -> Tokens:
    """Puzzles [B, N] with random cells of their solutions [B, N] added until they have so many clues [B]."""
    order = rng.random(puzzles.shape) - (puzzles != BLANK)  # the clues come first
    return np.where(order.argsort(axis=1).argsort(axis=1) < clues[:, None], boards, BLANK)


def _line_order(bands: NDArray[np.float64], lines: NDArray[np.float64]) -> Tokens:
    """Orders of rows or columns [B, n], drawn by bands or stacks [B, m] and by the lines in each of them [B, n]."""
    within = lines.reshape(*bands.shape, -1).argsort(2)
    order: Tokens = bands.argsort(1)[:, :, None] * within.shape[2] + within
    return order.reshape(lines.shape)


def _shown(value: object) -> str:
    """What stands where a symbol should, for an error message: short, whatever it is."""
    return repr(value) if isinstance(value, str) and len(value) < 10 else f"a {type(value).__name__}"


def main() -> None:
    """Write the held-out puzzles."""
    parser = argparse.ArgumentParser(
        prog="python -m gram.models.tasks.sudoku", description="Write the held-out Sudoku puzzles."
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=_KINDS, default=[*_KINDS], help="default: all")
    parser.add_argument("--folder", type=Path, default=DATA, help="where to; default: %(default)s")
    options = parser.parse_args()

    from tqdm import tqdm

    for size in options.sizes:
        task = Sudoku(size, paper={})
        lines = []
        for name, (count, series) in task.make_test_sets().items():
            lines.append(f"# {name}: {count} puzzles, written by python -m gram.models.tasks.sudoku --sizes {size}")
            puzzles = tqdm(itertools.islice(series, count), desc=f"{task.name}, {name}", total=count, unit="puzzle")
            lines.extend(task.text(puzzle).replace("\n", "") for puzzle in puzzles)
        options.folder.mkdir(exist_ok=True)
        (options.folder / f"{task.name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
