"""How a Sudoku is written: the accepted spellings, and errors that name the place. It needs numpy alone."""

import re
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.base import PuzzleError, Tokens, cell_name

BLANK = 0
_BLANK_SYMBOLS = ".0_*xX?"
_BLANK_NUMBERS = {0: "0", -1: "-1", None: "null"}
_LINE_BREAKS = re.compile(r"[\r\n/]+")
_SEPARATORS = re.compile(r"[\s|,;\u2500-\u257f]+")  # the last range is the box drawing characters
_COMMENT = re.compile(r"#.*")
_FIELDS = re.compile(r"[\s,:;|]+")
_APART = re.compile(r"\S( \S)*")
"""Symbols with a space between each two."""
_RULER = re.compile(r"[-+=\s]*|(?=.*[-=\u2500\u2550]{2})[-+=*.:'`|\s\u2500-\u257f]+")
"""A line that is drawn between rows; its corners may be symbols that are blanks elsewhere."""


class Codec:
    """Reads and writes boards of n digits, with boxes of box_rows rows. Token 0 is a blank, 1 to n are the digits."""

    def __init__(self, size: int, box_rows: int) -> None:
        self.size = size
        self.box_rows, self.box_columns = box_rows, size // box_rows
        self.seq_len = size * size
        cells = np.arange(self.seq_len).reshape(size, size)
        boxes = cells.reshape(size // self.box_rows, self.box_rows, size // self.box_columns, self.box_columns)
        self.units: NDArray[np.int64] = np.concatenate([cells, cells.T, boxes.swapaxes(1, 2).reshape(size, size)])
        """The cells of each row, then of each column, then of each box [3n, n]."""
        self.formats = [
            f"{self.seq_len} symbols in one text, 1 to {size} a digit and '.', '0', '_', '*', 'x' or '?' a blank; between rows "
            "line breaks and '/' are ignored, and so are spaces, '|', ',' and drawn lines of '-', '+' and '='. Where nothing "
            "stands between the symbols, a space or '-' is a blank, too, and between commas so is nothing. Comments begin with "
            f"'#', and what stands beside a field of {self.seq_len} symbols, such as a rating, is ignored",
            f"a list of {size} rows, each a text of {size} symbols",
            f"{size} lists of {size} numbers, 1 to {size} a digit and 0, -1 or null a blank; texts of one symbol work too",
        ]

    def spellings(self, text: str) -> list[JsonValue]:
        """One board in each of the formats, from its rows with a slash between them."""
        rows = text.split("/")
        numbers: list[JsonValue] = [[0 if symbol == "." else int(symbol) for symbol in row] for row in rows]
        return ["\n".join(rows), [*rows], numbers]

    def parse(self, puzzle: object) -> Tokens:
        """Read a board in any spelling -> [N]. Raises PuzzleError."""
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
        self._refuse_two_blanks(rows)
        digits = [self._digit(symbol, r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row)]
        tokens = np.array(digits, dtype=np.int64)
        self._refuse_repeats(tokens)
        return tokens

    def text(self, tokens: Tokens) -> str:
        """The board [N] as rows of symbols."""
        return "\n".join("".join(str(digit) if digit else "." for digit in row) for row in self.grid(tokens))

    def grid(self, tokens: Tokens) -> list[list[int]]:
        """The board [N] as rows of numbers."""
        rows: list[list[int]] = tokens.reshape(self.size, self.size).tolist()
        return rows

    def _text_rows(self, text: str) -> list[list[object]]:
        """The symbols of a text by rows: its lines if their number is n, else every n symbols."""
        lines = self._lines(self._filled(self._puzzle_in(text)))
        if len(lines) != self.size:
            symbols = "".join(lines)
            for i, symbol in enumerate(symbols[: self.seq_len]):
                self._digit(symbol, *divmod(i, self.size))
            if len(symbols) != self.seq_len:
                rows = f"{self.size} rows of {self.size}, {self.seq_len} in all"
                raise PuzzleError(f"the puzzle has {len(symbols)} symbols; write {rows}")
            lines = [symbols[i : i + self.size] for i in range(0, self.seq_len, self.size)]
        return [list(line) for line in lines]

    def _puzzle_in(self, text: str) -> str:
        """The text without comments; of a line with a field of a symbol for each cell, that field alone."""
        text = _COMMENT.sub("", text)
        fields = _FIELDS.split(text)
        symbols = {*_BLANK_SYMBOLS, "-", *map(str, range(1, self.size + 1))}
        return next((field for field in fields if len(field) == self.seq_len and set(field) <= symbols), text)

    def _filled(self, text: str) -> str:
        """The text with a dot for each space, if it has a symbol for each cell, and for each '-', if it is a single line."""
        lines = text.strip("\r\n").splitlines()
        if [len(line) for line in lines] == [self.size] * self.size:
            return text.replace(" ", ".")
        if [len(line) for line in lines] == [self.seq_len] and not _APART.fullmatch(lines[0]) and "/" not in text:
            return text.replace(" ", ".").replace("-", ".")
        return text

    def _lines(self, text: str) -> list[str]:
        """The symbols of each line, without rulers and empty lines."""
        lines = (self._symbols(line) for line in _LINE_BREAKS.split(text) if not _RULER.fullmatch(line))
        return [line for line in lines if line]

    def _symbols(self, line: str) -> str:
        for separator in ",;\t":
            if line.count(separator) + 1 in (self.size, self.seq_len):
                line = "".join(field.strip() or "." for field in line.split(separator))
        return _SEPARATORS.sub("", line)

    def _refuse_two_blanks(self, rows: list[list[object]]) -> None:
        """Refuse lists with two kinds of blanks: one of them may be meant as a digit."""
        found = [
            name
            for blank, name in _BLANK_NUMBERS.items()
            if any(symbol == blank and not isinstance(symbol, bool) for row in rows for symbol in row)
        ]
        if len(found) > 1:
            one, other = found[:2]
            raise PuzzleError(
                f"{one} and {other} can't both be blanks; if 0 is a digit here, add one to each, else use one blank"
            )

    def _digit(self, symbol: object, row: int, column: int) -> int:
        place = cell_name(row, column)
        match symbol:
            case None | -1:
                return BLANK
            case bool():
                raise PuzzleError(f"{symbol!r} is not a number; write a digit from 1 to {self.size}, or 0 for a blank", place)
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
        for unit, digits in enumerate(tokens[self.units]):
            counts = np.bincount(digits, minlength=self.size + 1)
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


def _shown(value: object) -> str:
    """A value that is not a symbol, for an error message: short, whatever it is."""
    return repr(value) if isinstance(value, str) and len(value) < 10 else f"a {type(value).__name__}"
