"""How a Sudoku is written: the accepted spellings, and errors that name the place. It needs numpy alone."""

import re
import string
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.base import ContradictionError, PuzzleError, Tokens, cell_name

BLANK = 0
_BLANK_SYMBOLS = ".0_*xX?"
_BLANK_NUMBERS = {0: "0", -1: "-1", None: "null"}
_LINE_BREAKS = re.compile(r"[\r\n/]+")
_SEPARATORS = re.compile(r"[\s|,;\u2500-\u257f]+")  # the last range is the box drawing characters
_COMMENT = re.compile(r"[#%].*")
_FIELDS = re.compile(r"[\s,:;|]+")
_APART = re.compile(r"\S( \S)*")
"""Symbols with a space between each two."""
BOX_ROWS = re.compile(r"^\s*#\s*box rows:\s*([0-9])\s*$", re.IGNORECASE | re.MULTILINE)
"""A comment that says how high the boxes are, where that is not what is usual."""
_GAME_ID = re.compile(r"([0-9])x([0-9])([a-z0-9]*):([a-z0-9_]+)")
"""A game of Simon Tatham's Solo: rows and columns of a box, variants, and the cells; a letter is a run of blanks."""
_RULER = re.compile(r"[-+=\s]*|(?=.*[-=\u2500\u2550]{2})[-+=*.:'`|\s\u2500-\u257f]+")
"""A line that is drawn between rows; its corners may be symbols that are blanks elsewhere."""


class Codec:
    """Reads and writes boards of n digits, with boxes of box_rows rows. Token 0 is a blank, 1 to n are the digits.

    `turned`: for the model the board is transposed, which makes other boxes of those that it knows.
    """

    def __init__(self, size: int, box_rows: int, *, turned: bool = False) -> None:
        self.size, self.turned = size, turned
        self.box_rows, self.box_columns = box_rows, size // box_rows
        self.seq_len = size * size
        self._alphabet = {*_BLANK_SYMBOLS, *map(str, range(1, size + 1))}
        self._line = re.compile(rf"[.0-{size}]{{{self.seq_len}}}")
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
            f"one list of {self.seq_len} such numbers, or of tokens (2 to {size + 1} a digit and 1 a blank) if there is a "
            f"{size + 1} among them",
            f"a game ID of Simon Tatham's puzzles: '{self.box_rows}x{self.box_columns}:' and the cells, a letter for a run of "
            "blanks",
        ]
        if self.box_rows != self.box_columns:
            self.formats.append(
                f'{{"box_rows": {self.box_columns}, "board": ...}}, any of the others, for boxes of {self.box_columns} rows '
                f"and {self.box_rows} columns; in a text, a first line '# box rows: {self.box_columns}' says the same"
            )

    def spellings(self, text: str) -> list[JsonValue]:
        """One board in each of the formats, from its rows with a slash between them."""
        rows = text.split("/")
        numbers: list[JsonValue] = [[0 if symbol == "." else int(symbol) for symbol in row] for row in rows]
        symbols = "".join(rows)
        flat: list[JsonValue] = [0 if symbol == "." else int(symbol) for symbol in symbols]
        runs = re.sub(r"\.{1,26}", lambda run: string.ascii_lowercase[len(run[0]) - 1], symbols)
        game = re.sub(r"(?<=[1-9])(?=[1-9])", "_", runs)
        found: list[JsonValue] = ["\n".join(rows), [*rows], numbers, flat, f"{self.box_rows}x{self.box_columns}:{game}"]
        if self.box_rows != self.box_columns:
            columns: list[JsonValue] = ["".join(column) for column in zip(*rows, strict=True)]
            found.append({"box_rows": self.box_columns, "board": columns})
        return found

    @property
    def transposed(self) -> "Codec":
        """The codec for people whose boxes lie the other way."""
        return Codec(self.size, self.box_columns, turned=not self.turned)

    def parse(self, puzzle: object) -> Tokens:
        """Read a board in any spelling -> [N]. Raises PuzzleError."""
        tokens = self._quickly(puzzle)
        if tokens is None:
            tokens = self._symbol_by_symbol(puzzle)
        self._refuse_repeats(tokens)
        return self._turn(tokens)

    def _quickly(self, puzzle: object) -> Tokens | None:
        """The digits of a text of n x n digits and dots, as files of very many puzzles have them; None for any other."""
        if not (isinstance(puzzle, str) and self._line.fullmatch(puzzle)):
            return None
        return np.frombuffer(puzzle.replace(".", "0").encode(), np.uint8).astype(np.int64) - ord("0")

    def _symbol_by_symbol(self, puzzle: object) -> Tokens:
        match puzzle:
            case str():
                rows = self._text_rows(puzzle)
            case [*symbols] if len(symbols) == self.seq_len:
                rows = [symbols[i : i + self.size] for i in range(0, self.seq_len, self.size)]
                rows = self._without_offset(rows)
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
        return np.array(digits, dtype=np.int64)

    def text(self, tokens: Tokens) -> str:
        """The board [N] as rows of symbols."""
        rows = ["".join(str(digit) if digit else "." for digit in row) for row in self.grid(tokens)]
        return "\n".join([f"# box rows: {self.box_rows}", *rows] if self.turned else rows)

    def grid(self, tokens: Tokens) -> list[list[int]]:
        """The board [N] as rows of numbers."""
        rows: list[list[int]] = self._turn(tokens).reshape(self.size, self.size).tolist()
        return rows

    def place(self, cell: int) -> str:
        """The name of a cell, by its place in the tokens."""
        row, column = divmod(cell, self.size)
        return cell_name(column, row) if self.turned else cell_name(row, column)

    def _turn(self, tokens: Tokens) -> Tokens:
        """A board [N] as the model has it from the board as it is written, or the other way round."""
        return tokens.reshape(self.size, self.size).T.ravel() if self.turned else tokens

    def is_row(self, line: str) -> bool:
        """Whether a line of a text is a row of a board. A space is a blank in a line of n symbols."""
        drawn = self.is_ruler(line)
        if len(line) == self.size and set(line) <= self._alphabet | {" ", "-"} and not ("-" in line and drawn):
            return True
        symbols = self._symbols(_COMMENT.sub("", line))
        return not drawn and len(symbols) == self.size and set(symbols) <= self._alphabet

    def is_whole(self, line: str) -> bool:
        """Whether a line of a text has a whole board, or a game ID, be it of another game."""
        if _GAME_ID.fullmatch(line.strip()):
            return True
        symbols = "".join(self._lines(self._filled(self._puzzle_in(line))))
        return len(symbols) == self.seq_len and set(symbols) <= self._alphabet

    @staticmethod
    def is_ruler(line: str) -> bool:
        """Whether a line of a text is drawn, or empty."""
        return bool(_RULER.fullmatch(line))

    def _without_offset(self, rows: list[list[object]]) -> list[list[object]]:
        """The numbers with 0 as a blank. If 1 was a blank, they go up to n + 1. Raises PuzzleError if that is open."""
        numbers = [number for row in rows for number in row if type(number) is int]
        if len(numbers) < self.seq_len or min(numbers) < 1:
            return rows
        if max(numbers) == self.size + 1:
            return [[number - 1 for number in row] for row in cast("list[list[int]]", rows)]
        if max(numbers) <= self.size and any(len(set(row)) < self.size for row in rows):
            raise PuzzleError(f"numbers from 1 to {self.size} without a 0: if 1 is a blank here, subtract one from each")
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
        text = _COMMENT.sub("", text).strip("\r\n")
        if "\n" in text:
            return text
        if game := _GAME_ID.fullmatch(text.strip()):
            return self._game(game)
        fields = (field.replace("+", "") for field in _FIELDS.split(text))  # HoDoKu's + is before a digit that is no clue
        symbols = self._alphabet | {"-"}
        boards = [field for field in fields if len(field) == self.seq_len and set(field) <= symbols]
        return next((board for board in boards if set(board) & {*_BLANK_SYMBOLS, "-"}), boards[0] if boards else text)

    def _game(self, game: re.Match[str]) -> str:
        """The symbols of a game ID. Raises PuzzleError if it is of another kind of Sudoku."""
        rows, columns, variant, cells = int(game[1]), int(game[2]), game[3], game[4]
        if (rows, columns) != (self.box_rows, self.box_columns) or {*variant} & {*"xkj"}:
            plain = f"{self.box_rows}x{self.box_columns}"
            raise PuzzleError(f"the game {game[0].split(':')[0]} is another kind of Sudoku; this one is {plain}")
        if len(cells) > 2 * self.seq_len:
            raise PuzzleError(f"the game has more than {self.seq_len} cells")
        runs = {letter: "." * i for i, letter in enumerate(string.ascii_lowercase, start=1)}
        return "".join(runs.get(cell, cell) for cell in cells.replace("_", ""))

    def _filled(self, text: str) -> str:
        """The text with a dot for each space and each '-', if it has a symbol for each cell, in n lines or in one."""
        lines = text.strip("\r\n").splitlines()
        lengths = [len(line) for line in lines]
        one_line = lengths == [self.seq_len] and not _APART.fullmatch(lines[0]) and "/" not in text
        return text.replace(" ", ".").replace("-", ".") if one_line or lengths == [self.size] * self.size else text

    def _lines(self, text: str) -> list[str]:
        """The symbols of each line, without rulers and empty lines."""
        lines = (self._symbols(line) for line in _LINE_BREAKS.split(text) if not self.is_ruler(line))
        return [line for line in lines if line]

    def _symbols(self, line: str) -> str:
        if framed := self._in_frame(line):
            return framed
        for separator in ",;\t":
            if line.count(separator) + 1 in (self.size, self.seq_len):
                line = "".join(field.strip() or "." for field in line.split(separator))
        return _SEPARATORS.sub("", line)

    def _in_frame(self, line: str) -> str:
        """The symbols between bars, where each has a place of its own, so that a space in it is a blank; else nothing."""
        parts = line.strip().strip("|\u2502\u2551").replace("\u2502", "|").replace("\u2551", "|").split("|")
        if len(parts) == self.size and all(len(part) == 1 for part in parts):
            places = "".join(parts)
        elif len(parts) == self.size // self.box_columns and all(
            len(part) == 2 * self.box_columns + 1 and part[::2].isspace() for part in parts
        ):
            places = "".join(part[1::2] for part in parts)
        else:
            return ""
        return places.replace(" ", ".")

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
            case None | -1 | "":
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
        """Raise ContradictionError if a digit stands more than once in a row, a column or a box."""
        digits = np.arange(1, self.size + 1)
        counts = np.sum(tokens[self.units][:, :, None] == digits, axis=1)  # [units, digits]
        for unit in np.flatnonzero(counts.max(axis=1) > 1)[:1]:
            amount = "two" if counts[unit].max() == 2 else "several"
            raise ContradictionError(
                f"has {amount} {digits[counts[unit].argmax()]}s; change or clear one", self._unit_name(unit)
            )

    def _unit_name(self, unit: int) -> str:
        kind, index = divmod(unit, self.size)
        if kind < 2:
            return f"{('row', 'column')[kind]} {index + 1}"
        row, column = index // self.box_rows * self.box_rows, index % self.box_rows * self.box_columns
        return f"the box of rows {row + 1}-{row + self.box_rows}, columns {column + 1}-{column + self.box_columns}"


def box_rows(puzzle: object) -> int | None:
    """The height of the boxes, if the writer of a puzzle says it."""
    match puzzle:
        case {"box_rows": int(rows), "board": _}:
            return rows
        case str() if said := BOX_ROWS.search(puzzle) or _GAME_ID.fullmatch(puzzle.strip()):
            return int(said[1])
    return None


def _shown(value: object) -> str:
    """A value that is not a symbol, for an error message: short, whatever it is."""
    return repr(value) if isinstance(value, str) and len(value) < 10 else f"a {type(value).__name__}"
