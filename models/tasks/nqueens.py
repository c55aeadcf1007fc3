"""N-Queens completion: given some queens, place the others so that no two share a row, a column or a diagonal."""

import hashlib
import itertools
import re
import string
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.base import ContradictionError, PuzzleError, Task, Tokens, cell_name
from gram.models.tasks.symmetry import Symmetries

UNKNOWN, EMPTY, QUEEN = range(3)
_QUEEN_SYMBOLS = "Qq1*"
_BLANK_SYMBOLS = ".0_-"
_SEPARATORS = re.compile(r"[\s/|,;]+")
_SQUARE = re.compile(r"([A-Za-z])([0-9]{1,3})")


class NQueens(Task):
    """A puzzle is an n x n board with some queens given; every other square is unknown.

    The puzzles of the benchmark, as in the paper, have 1 to 3 queens given. Training also sees the empty board, from which the
    model generates, and a few with more queens, so that the model answers any board that a user may send.
    """

    vocab_size = 3
    num_draws = 1
    benchmark_given = (1, 2, 3)
    empty_share, other_share = 0.1, 0.1
    """The shares of training puzzles that are the empty board, and that are others outside of the benchmark."""

    def __init__(self, size: int, paper: dict[str, float], held_out_every: int = 7) -> None:
        """One orbit of puzzles in `held_out_every` is held out."""
        self.size = size
        self.held_out_every = held_out_every
        self.name = f"nqueens-{size}"
        self.title = f"{size}x{size} N-Queens: complete the board to {size} queens, none attacking another."
        self.seq_len = size * size
        self.paper = paper
        board = np.full((size, size), UNKNOWN)
        board[1, 6], board[4, 0] = QUEEN, QUEEN
        rows: list[JsonValue] = [*self._rows(board)]
        self.examples = [
            "\n".join(self._rows(board)),
            rows,
            "g7 a4",
            {"queens": [[1, 6], [4, 0]]},
            (board == QUEEN).astype(int).tolist(),
        ]
        self.formats = [
            f"{size * size} symbols in one text, '{_QUEEN_SYMBOLS[0]}' a queen and '{_BLANK_SYMBOLS[0]}' a square to fill; "
            "line breaks, spaces and '/' between rows are ignored; in rows as of FEN, a number is so many squares to fill",
            f"a list of {size} rows, each a text of {size} symbols",
            f"the given queens as squares, in a text or a list, each a file a-{string.ascii_lowercase[size - 1]} and a rank "
            f"1-{size} (1 at the bottom)",
            '{"queens": [[row, column], ...]}, counted from 0, row 0 on top; {"queens": []} is the empty board',
            f"{size} lists of {size} numbers, 1 a queen and 0 a square to fill, or of {size} symbols",
        ]

    @property
    def blank(self) -> Tokens:
        return np.full(self.seq_len, UNKNOWN)

    def parse(self, puzzle: object) -> Tokens:
        match puzzle:
            case {"queens": list(queens), **others} if not others:
                squares = [self._pair(pair, f"queens[{i}]") for i, pair in enumerate(queens)]
            case str() if _SQUARE.match(puzzle.strip()) and not self._is_board(puzzle):
                squares = [self._named_square(word) for word in _SEPARATORS.split(puzzle.strip()) if word]
            case str():
                squares = self._board(self._fen(puzzle) or _SEPARATORS.sub("", puzzle))
            case [*words] if words and all(isinstance(word, str) and _SQUARE.fullmatch(word) for word in words):
                squares = [self._named_square(str(word)) for word in words]
            case [*rows] if rows and all(isinstance(row, str) for row in rows):
                squares = self._board("".join(self._row(str(row), i) for i, row in enumerate(rows)))
            case [*rows] if rows and all(isinstance(row, list) for row in rows):
                numbers = cast("list[list[object]]", rows)
                squares = self._board("".join(self._number_row(row, i) for i, row in enumerate(numbers)))
            case _:
                raise PuzzleError("a board is one of: " + "; ".join(self.formats))
        return self._place(squares)

    def text(self, tokens: Tokens) -> str:
        return "\n".join(self._rows(tokens.reshape(self.size, self.size)))

    def grid(self, tokens: Tokens) -> list[list[int]]:
        rows: list[list[int]] = (tokens.reshape(self.size, self.size) == QUEEN).astype(int).tolist()
        return rows

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        squares = [divmod(int(i), self.size) for i in np.flatnonzero(answer == QUEEN)]
        whole = len(squares) == self.size and not np.any(answer == UNKNOWN)
        given_stand = np.all(answer[puzzle == QUEEN] == QUEEN)
        return bool(whole and given_stand) and not any(_attack(a, b) for a, b in itertools.combinations(squares, 2))

    def solutions(self, puzzle: Tokens) -> Tokens:
        return self.boards[self._queens[:, puzzle == QUEEN].all(axis=1)]

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:
        """The board's rotations and mirror images."""
        return replace(super().symmetries(puzzles, draws), cells=self._images[(draws[:, 0] * len(self._images)).astype(int)])

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        benchmark, others = self._benchmark_split[0], self._other_puzzles
        puzzles = benchmark[rng.integers(len(benchmark), size=count)]
        kind = rng.random(count)
        puzzles[kind < self.empty_share] = self.blank
        for i in np.flatnonzero(kind >= 1 - self.other_share):
            group = others[rng.integers(len(others))]
            puzzles[i] = group[rng.integers(len(group))]
        answers = [rng.choice(self.solutions(puzzle)) for puzzle in puzzles]
        return puzzles, np.stack(answers)

    @cached_property
    def held_out(self) -> Tokens:
        return self._benchmark_split[1]

    @cached_property
    def boards(self) -> Tokens:
        """All complete boards [n, N], in lexical order."""
        found: list[list[int]] = []

        def place(columns: list[int]) -> None:
            row = len(columns)
            if row == self.size:
                found.append(columns)
                return
            taken = {c + step * (row - r) for r, c in enumerate(columns) for step in (-1, 0, 1)}
            for column in sorted(set(range(self.size)) - taken):
                place([*columns, column])

        place([])
        boards = np.full((len(found), self.size, self.size), EMPTY)
        boards[np.arange(len(found))[:, None], np.arange(self.size), np.array(found)] = QUEEN
        return boards.reshape(len(found), -1)

    @cached_property
    def _benchmark_split(self) -> tuple[Tokens, Tokens]:
        """The puzzles of the benchmark: those to train on, and those held out, both [n, N].

        They are split by orbit, so a puzzle and its symmetric images stay together. The orbits are ordered by given queens,
        then by number of solutions, then by a hash, and one in `held_out_every` is held out. So both sides are equally
        difficult.
        """
        orbits: dict[bytes, list[Tokens]] = {}
        for given in self.benchmark_given:
            puzzles = self._puzzles(given)
            for puzzle, orbit in zip(puzzles.astype(np.int64), self._orbits(puzzles), strict=True):
                orbits.setdefault(orbit, []).append(puzzle)

        def rank(orbit: bytes) -> tuple[int, int, bytes]:
            puzzle = orbits[orbit][0]
            return int(np.sum(puzzle == QUEEN)), len(self.solutions(puzzle)), hashlib.sha256(orbit).digest()

        train: list[Tokens] = []
        held_out: list[Tokens] = []
        for i, orbit in enumerate(sorted(orbits, key=rank)):
            (held_out if i % self.held_out_every == self.held_out_every // 2 else train).extend(orbits[orbit])
        return np.stack(train), np.stack(held_out)

    @cached_property
    def _other_puzzles(self) -> list[NDArray[np.uint8]]:
        """The solvable puzzles outside the benchmark, [n, N] for each number of given queens; as bytes, since they are many."""
        return [self._puzzles(given) for given in range(self.size) if given not in self.benchmark_given]

    @cached_property
    def _queens(self) -> NDArray[np.bool_]:
        """Where the queens of each complete board stand [n, N]."""
        queens: NDArray[np.bool_] = self.boards == QUEEN
        return queens

    def _puzzles(self, given: int) -> NDArray[np.uint8]:
        """All solvable puzzles with this many queens given [n, N], in the order of their squares."""
        squares = np.nonzero(self._queens)[1].reshape(len(self.boards), self.size)
        base = self.seq_len ** np.arange(given)[::-1]
        chosen = [np.array(queens, int) for queens in itertools.combinations(range(self.size), given)]
        numbers = np.unique(np.concatenate([squares[:, queens] @ base for queens in chosen]))  # one number for each puzzle
        puzzles = np.full((len(numbers), self.seq_len), UNKNOWN, np.uint8)
        np.put_along_axis(puzzles, numbers[:, None] // base % self.seq_len, QUEEN, axis=1)
        return puzzles

    def _orbits(self, puzzles: NDArray[np.uint8]) -> list[bytes]:
        """The smallest of the eight symmetric images of each puzzle [n, N], which names its orbit."""
        return [min(image.tobytes() for image in puzzle[self._images]) for puzzle in puzzles]

    @cached_property
    def _images(self) -> Tokens:
        """The square that each square shows in each of the board's eight images [8, N]."""
        board = np.arange(self.seq_len).reshape(self.size, self.size)
        return np.stack([np.rot90(side, turns).ravel() for side in (board, board.T) for turns in range(4)])

    def _rows(self, board: Tokens) -> list[str]:
        return ["".join(_QUEEN_SYMBOLS[0] if square == QUEEN else _BLANK_SYMBOLS[0] for square in row) for row in board]

    def _is_board(self, puzzle: str) -> bool:
        return not set(_SEPARATORS.sub("", puzzle)) - set(_QUEEN_SYMBOLS + _BLANK_SYMBOLS)

    def _row(self, row: str, index: int) -> str:
        symbols = _SEPARATORS.sub("", row)
        if len(symbols) != self.size:
            raise PuzzleError(f"has {len(symbols)} symbols; write {self.size}", f"row {index + 1}")
        return symbols

    def _fen(self, text: str) -> str | None:
        """The symbols of a board whose rows are written as in FEN; None if they are not."""
        rows = text.strip().split("/")
        fen = len(rows) == self.size and all(set(row) <= set("Qq123456789") for row in rows)
        if not fen or {len(row) for row in rows} == {self.size}:  # then "1" is a queen
            return None
        drawn = (re.sub("[1-9]", lambda number: _BLANK_SYMBOLS[0] * int(number[0]), row) for row in rows)
        return "".join(self._row(row, i) for i, row in enumerate(drawn))

    def _number_row(self, row: list[object], index: int) -> str:
        for column, number in enumerate(row):
            if number not in (0, 1) and not (isinstance(number, str) and len(number) == 1):
                raise PuzzleError(f"{number!r} is not 0 or 1", cell_name(index, column))
        return self._row("".join(number if isinstance(number, str) else str(int(bool(number))) for number in row), index)

    def _board(self, symbols: str) -> list[tuple[int, int]]:
        for i, symbol in enumerate(symbols):
            if symbol not in _QUEEN_SYMBOLS + _BLANK_SYMBOLS:
                message = f"{symbol!r} is neither a queen ('{_QUEEN_SYMBOLS[0]}') nor a square to fill ('{_BLANK_SYMBOLS[0]}')"
                raise PuzzleError(message, cell_name(*divmod(i, self.size)))
        if len(symbols) != self.seq_len:
            raise PuzzleError(
                f"the board has {len(symbols)} squares; write {self.size} rows of {self.size}, {self.seq_len} in all"
            )
        return [divmod(i, self.size) for i, symbol in enumerate(symbols) if symbol in _QUEEN_SYMBOLS]

    def _pair(self, pair: object, place: str) -> tuple[int, int]:
        match pair:
            case [int(row), int(column)] if not isinstance(row, bool) and not isinstance(column, bool):
                if 0 <= row < self.size and 0 <= column < self.size:
                    return row, column
        raise PuzzleError(f"{pair!r} is not [row, column] with both from 0 to {self.size - 1}", place)

    def _named_square(self, word: str) -> tuple[int, int]:
        match = _SQUARE.fullmatch(word)
        if match:
            column, rank = string.ascii_lowercase.index(match[1].lower()), int(match[2])
            if column < self.size and 1 <= rank <= self.size:
                return self.size - rank, column
        last = string.ascii_lowercase[self.size - 1]
        raise PuzzleError(f"not a square of this board; squares are a1 to {last}{self.size}", repr(word))

    def _place(self, squares: list[tuple[int, int]]) -> Tokens:
        for a, b in itertools.combinations(squares, 2):
            if a == b:
                raise PuzzleError("this queen is given twice; give it once", cell_name(*a))
            if line := _attack(a, b):
                message = f"attacks the queen on {cell_name(*b)} along a {line}; move or remove one of them"
                raise ContradictionError(message, f"the queen on {cell_name(*a)}")
        tokens = np.full((self.size, self.size), UNKNOWN)
        for row, column in squares:
            tokens[row, column] = QUEEN
        return tokens.reshape(-1)


def _attack(a: tuple[int, int], b: tuple[int, int]) -> str | None:
    """The line along which two queens attack each other, if any."""
    if a[0] == b[0]:
        return "row"
    if a[1] == b[1]:
        return "column"
    return "diagonal" if abs(a[0] - b[0]) == abs(a[1] - b[1]) else None
