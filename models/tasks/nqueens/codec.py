"""How a board of queens is written: the accepted spellings, and errors that name the place."""

import itertools
import re
import reprlib
import string
from typing import cast

import numpy as np
from pydantic import JsonValue

from gram.models.tasks.base import ContradictionError, PuzzleError, Tokens, cell_name
from gram.models.tasks.nqueens import columns, facts

UNKNOWN, EMPTY, QUEEN = range(3)
_QUEEN_SYMBOLS = "Qq1*\u2655\u265b"
_BLANK_SYMBOLS = ".0_-\u00b7"
_SEPARATORS = re.compile(r"[\s/|,;\u2500-\u257f]+")  # the last range is the box drawing characters
_SQUARE = re.compile(r"([A-Za-z])([0-9]{1,3})")
_BARS = re.compile(r"[|\u2502\u2551]")
_LINES = "-=\u2500\u2550"
_CORNERS = re.compile(r"[+\u2500-\u257f]")

Square = tuple[int, int]


class Codec:
    """Reads and writes boards of n rows and n columns. An empty square of a puzzle is unknown."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seq_len = size * size
        self.formats = [
            f"{size * size} symbols in one text, '{_QUEEN_SYMBOLS[0]}' a queen and '{_BLANK_SYMBOLS[0]}' a square to fill; "
            "line breaks, spaces, '/' and drawn lines between rows are ignored; in rows as of FEN, a number is so many squares "
            "to fill",
            f"a list of {size} rows, each a text of {size} symbols",
            f"the given queens as squares, in a text or a list, each a file a-{string.ascii_lowercase[size - 1]} and a rank "
            f"1-{size} (1 at the bottom)",
            '{"queens": [[row, column], ...]}, counted from 0, row 0 on top; {"queens": []} is the empty board',
            f"{size} lists of {size} numbers, 1 a queen and 0 a square to fill, or of {size} symbols; or one list of all "
            f"{size * size}",
            f"the column of each row's queen, top row first, as {size} numbers in a list or text: 1 to {size} and 0 for none; "
            f"or 0 to {size - 1}, with a 0 and without the {size}, all of them or with null or -1 for none",
            "facts 'queen(ROW, COLUMN)' or 'q(ROW, COLUMN)', as of answer set programming; counted from 1, row 1 on top, or "
            "from 0 if there is a 0",
        ]

    def spellings(self, queens: list[Square]) -> list[JsonValue]:
        """One board in each of the formats."""
        board = self._place(queens)
        rows: list[JsonValue] = [*self._rows(board)]
        pairs: list[JsonValue] = [[row, column] for row, column in queens]
        column_of = dict(queens)
        return [
            "\n".join(self._rows(board)),
            rows,
            " ".join(f"{string.ascii_lowercase[column]}{self.size - row}" for row, column in queens),
            {"queens": pairs},
            [[*row] for row in self.grid(board)],
            [column_of.get(row, -1) + 1 for row in range(self.size)],
            " ".join(f"queen({row + 1},{column + 1})." for row, column in queens),
        ]

    def parse(self, puzzle: object) -> Tokens:
        """Read a board in any spelling -> [N]. Raises PuzzleError."""
        match puzzle:
            case {"queens": list(queens), **others} if not others:
                squares = [self._pair(pair, f"queens[{i}]") for i, pair in enumerate(queens)]
            case str():
                squares = self._text(puzzle)
            case [*words] if words and all(isinstance(word, str) and _SQUARE.fullmatch(word) for word in words):
                squares = [self._named_square(str(word)) for word in words]
            case [*symbols] if len(symbols) == self.seq_len and not any(isinstance(symbol, list) for symbol in symbols):
                rows = [symbols[start : start + self.size] for start in range(0, self.seq_len, self.size)]
                squares = self._board("".join(self._number_row(row, i) for i, row in enumerate(rows)))
            case [*numbers] if columns.are_columns(numbers, self.size):
                squares = columns.read(numbers, self.size)
            case [*rows] if rows and all(isinstance(row, str) for row in rows):
                squares = self._board("".join(self._row(str(row), i) for i, row in enumerate(rows)))
            case [*rows] if rows and all(isinstance(row, list) for row in rows):
                lists = cast("list[list[object]]", rows)
                squares = self._board("".join(self._number_row(row, i) for i, row in enumerate(lists)))
            case _:
                raise PuzzleError("a board is one of: " + "; ".join(self.formats))
        return self._place(squares)

    def text(self, tokens: Tokens) -> str:
        """The board [N] as rows of symbols."""
        return "\n".join(self._rows(tokens))

    def grid(self, tokens: Tokens) -> list[list[int]]:
        """The board [N] as rows of numbers, 1 a queen."""
        rows: list[list[int]] = (tokens.reshape(self.size, self.size) == QUEEN).astype(int).tolist()
        return rows

    def is_row(self, line: str) -> bool:
        """Whether a line of a text is one row of a board."""
        symbols = _SEPARATORS.sub("", _filled(line, self.size))
        return len(symbols) == self.size and self._is_board(symbols)

    @staticmethod
    def is_ruler(line: str) -> bool:
        """Whether a line of a text is drawn between rows: from a corner on, and with nothing else in it."""
        drawn = _CORNERS.match(line.strip()) and any(symbol in line for symbol in _LINES)
        return bool(drawn) and not _CORNERS.sub("", line).strip(f"{_LINES} \t\r\n")

    def _text(self, text: str) -> list[Square]:
        if facts.are_facts(text):
            return facts.read(text, self.size)
        one_line = "\n" not in text.strip()
        if one_line and (numbers := columns.in_text(text, self.size)) and columns.are_columns(numbers, self.size):
            return columns.read(numbers, self.size)
        if _SQUARE.match(text.strip()) and not self._is_board(text):
            return [self._named_square(word) for word in _SEPARATORS.split(text.strip()) if word]
        if fen := self._fen(text):
            return self._board(fen)
        drawn = "".join(_filled(line, self.size) for line in text.splitlines() if not self.is_ruler(line))
        return self._board(_SEPARATORS.sub("", drawn))

    def _rows(self, tokens: Tokens) -> list[str]:
        return ["".join(_QUEEN_SYMBOLS[0] if square else _BLANK_SYMBOLS[0] for square in row) for row in self.grid(tokens)]

    def _is_board(self, puzzle: str) -> bool:
        return not set(_SEPARATORS.sub("", puzzle)) - set(_QUEEN_SYMBOLS + _BLANK_SYMBOLS)

    def _row(self, row: str, index: int) -> str:
        symbols = _SEPARATORS.sub("", row)
        if len(symbols) != self.size:
            raise PuzzleError(f"has {len(symbols)} symbols; write {self.size}", f"row {index + 1}")
        return symbols

    def _fen(self, text: str) -> str | None:
        """The symbols of a board whose rows are written as in FEN; None if they are not."""
        fields = text.split()
        rows = (fields[0] if len(fields) in (4, 6) and fields[1] in "wb" else text.strip()).split("/")
        fen = len(rows) == self.size and all(set(row) <= set("Qq123456789") for row in rows)
        if not fen or {len(row) for row in rows} == {self.size}:  # then "1" is a queen
            return None
        drawn = (re.sub("[1-9]", lambda number: _BLANK_SYMBOLS[0] * int(number[0]), row) for row in rows)
        return "".join(self._row(row, i) for i, row in enumerate(drawn))

    def _number_row(self, row: list[object], index: int) -> str:
        for column, number in enumerate(row):
            if number not in (0, 1) and not (isinstance(number, str) and len(number) == 1):
                raise PuzzleError(f"{reprlib.repr(number)} is not 0 or 1", cell_name(index, column))
        return self._row("".join(number if isinstance(number, str) else str(int(bool(number))) for number in row), index)

    def _board(self, symbols: str) -> list[Square]:
        for i, symbol in enumerate(symbols):
            if symbol not in _QUEEN_SYMBOLS + _BLANK_SYMBOLS:
                message = f"{symbol!r} is neither a queen ('{_QUEEN_SYMBOLS[0]}') nor a square to fill ('{_BLANK_SYMBOLS[0]}')"
                raise PuzzleError(message, cell_name(*divmod(i, self.size)))
        if len(symbols) != self.seq_len:
            raise PuzzleError(
                f"the board has {len(symbols)} squares; write {self.size} rows of {self.size}, {self.seq_len} in all"
            )
        return [divmod(i, self.size) for i, symbol in enumerate(symbols) if symbol in _QUEEN_SYMBOLS]

    def _pair(self, pair: object, place: str) -> Square:
        match pair:
            case [int(row), int(column)] if not isinstance(row, bool) and not isinstance(column, bool):
                if 0 <= row < self.size and 0 <= column < self.size:
                    return row, column
        raise PuzzleError(f"{reprlib.repr(pair)} is not [row, column] with both from 0 to {self.size - 1}", place)

    def _named_square(self, word: str) -> Square:
        match = _SQUARE.fullmatch(word)
        if match:
            column, rank = string.ascii_lowercase.index(match[1].lower()), int(match[2])
            if column < self.size and 1 <= rank <= self.size:
                return self.size - rank, column
        last = string.ascii_lowercase[self.size - 1]
        raise PuzzleError(f"not a square of this board; squares are a1 to {last}{self.size}", reprlib.repr(word))

    def _place(self, squares: list[Square]) -> Tokens:
        tokens = np.full((self.size, self.size), UNKNOWN)
        for row, column in squares:
            if tokens[row, column] == QUEEN:
                raise PuzzleError("this queen is given twice; give it once", cell_name(row, column))
            tokens[row, column] = QUEEN
        for a, b in itertools.combinations(squares, 2):
            if line := attack(a, b):
                message = f"attacks the queen on {cell_name(*b)} along a {line}; move or remove one of them"
                raise ContradictionError(message, f"the queen on {cell_name(*a)}")
        return tokens.reshape(-1)


def attack(a: Square, b: Square) -> str | None:
    """The line along which two queens attack each other, if any."""
    if a[0] == b[0]:
        return "row"
    if a[1] == b[1]:
        return "column"
    return "diagonal" if abs(a[0] - b[0]) == abs(a[1] - b[1]) else None


def _filled(line: str, size: int) -> str:
    """A line of a drawn board, with a symbol in each empty cell between bars."""
    cells = _BARS.split(line.strip())
    if len(cells) == size + 2 and not cells[0] and not cells[-1]:
        cells = cells[1:-1]
    return "".join(cell.strip() or _BLANK_SYMBOLS[0] for cell in cells) if len(cells) == size else line
