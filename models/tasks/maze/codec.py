"""How a maze is written: the accepted spellings, and errors that name the place. It needs numpy alone."""

import re
from collections import Counter
from typing import cast

import numpy as np
from pydantic import JsonValue

from gram.models.tasks.base import PuzzleError, Tokens, cell_name
from gram.models.tasks.maze.paths import GOAL, PATH, SPACE, START, WALL

SYMBOLS = "#.SGo"
"""How the symbols are written, in their order."""
_READ = {"#": WALL, "\u2588": WALL, ".": SPACE, " ": SPACE, "o": PATH, "S": START, "s": START} | dict.fromkeys("GgEeFfXx", GOAL)
_NAMES = {START: "start", GOAL: "goal"}
_APART = re.compile(r"\S( \S)*")
"""Symbols with a space between each two."""


class Codec:
    """Reads and writes mazes of n rows and n columns."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seq_len = size * size
        self.formats = [
            f"{size} rows of {size} symbols in one text: '#' a wall, '.' or a space an open cell, 'S' the start and 'G' the "
            "goal, or one 'E', 'F' or 'X' in its place. A line break or '/' is between rows, and between rows without "
            "spaces in them a space works too; one space after each symbol is ignored. In an answer 'o' is the path",
            f"all {self.seq_len} symbols in one line, a space an open cell",
            f"a list of {size} rows, each a text of {size} symbols",
            f"{size} lists of {size} numbers, 0 a wall, 1 an open cell, 2 the start, 3 the goal and in an answer 4 the path; "
            "or of tokens, one more for each, as HRM's and TRM's data sets have them; texts of one symbol work too",
            f"one list of {self.seq_len} such numbers",
        ]

    def spellings(self, maze: Tokens) -> list[JsonValue]:
        """One maze in each of the formats."""
        text = self.text(maze)
        rows: list[JsonValue] = [*text.split("\n")]
        numbers: list[JsonValue] = [[*row] for row in self.grid(maze)]
        return [text, text.replace("\n", "").replace(".", " "), rows, numbers, [int(token) + 1 for token in maze]]

    def parse(self, puzzle: object) -> Tokens:
        """Read a maze in any spelling -> [N]. Raises PuzzleError."""
        match puzzle:
            case str():
                rows = self._text_rows(puzzle)
            case [*symbols] if len(symbols) == self.seq_len:
                rows = [symbols[i : i + self.size] for i in range(0, self.seq_len, self.size)]
            case [*texts] if texts and all(isinstance(row, str) for row in texts):
                rows = [[*self._together(str(row))] for row in texts]
            case [*lists] if lists and all(isinstance(row, list) for row in lists):
                rows = cast("list[list[object]]", lists)
            case _:
                raise PuzzleError("a maze is one of: " + "; ".join(self.formats))
        for i, row in enumerate(rows):
            if len(row) != self.size:
                lost = " (at the end of a line '.' is safer than a space)" if len(row) < self.size and " " in row else ""
                raise PuzzleError(f"has {len(row)} symbols; write {self.size}{lost}", f"row {i + 1}")
        if len(rows) != self.size:
            raise PuzzleError(f"the maze has {len(rows)} rows; write {self.size}")
        rows = self._without_offset(rows)
        symbols = [self._symbol(symbol, r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row)]
        tokens = np.array(symbols, dtype=np.int64)
        for symbol, name in _NAMES.items():
            self._refuse_all_but_one(np.flatnonzero(tokens == symbol), name, SYMBOLS[symbol])
        return tokens

    def text(self, tokens: Tokens) -> str:
        """The maze [N] as rows of symbols."""
        return "\n".join("".join(SYMBOLS[symbol] for symbol in row) for row in self.grid(tokens))

    def grid(self, tokens: Tokens) -> list[list[int]]:
        """The maze [N] as rows of numbers."""
        rows: list[list[int]] = tokens.reshape(self.size, self.size).tolist()
        return rows

    def is_row(self, line: str) -> bool:
        """Whether a line of a text is a row of a maze of this size."""
        row = self._together(line)
        return len(row) == self.size and set(row) <= _READ.keys()

    def _text_rows(self, text: str) -> list[list[object]]:
        """The symbols of a text by rows. Raises PuzzleError if it has no rows and not as many symbols as a maze."""
        text = text.strip("\r\n")
        if "\n" in text or text.count("/") == self.size - 1:
            lines = re.split(r"\r?\n|/", text)
        elif len(text) == self.seq_len:
            lines = [text[i : i + self.size] for i in range(0, self.seq_len, self.size)]
        else:
            lines = text.split()
            if len(lines) != self.size:
                rows = f"{self.size} rows of {self.size}, {self.seq_len} in all"
                raise PuzzleError(f"the maze has {len(text)} symbols in one line; write {rows}")
        return [[*self._together(line)] for line in lines]

    def _together(self, row: str) -> str:
        """A row without the spaces between its symbols, if it has one between each two."""
        return row[::2] if len(row) == 2 * self.size - 1 and _APART.fullmatch(row) else row

    def _without_offset(self, rows: list[list[object]]) -> list[list[object]]:
        """The numbers with 0 as a wall. If 1 was a wall, they go up to 5. Raises PuzzleError if that is open."""
        numbers = [number for row in rows for number in row if type(number) is int]
        if len(numbers) < self.seq_len:
            return rows
        counts = Counter(numbers)
        plain = counts[START] == counts[GOAL] == 1 and max(counts) <= PATH
        added = counts[START + 1] == counts[GOAL + 1] == 1 and min(counts) >= 1
        if plain and added:
            raise PuzzleError("in these numbers 0 or 1 can be the wall; if it is 1, subtract one from each")
        return [[number - 1 for number in row] for row in cast("list[list[int]]", rows)] if added else rows

    def _symbol(self, symbol: object, row: int, column: int) -> int:
        place = cell_name(row, column)
        match symbol:
            case str() if symbol in _READ:
                return _READ[symbol]
            case int() if not isinstance(symbol, bool):
                if WALL <= symbol <= PATH:
                    return symbol
                raise PuzzleError("a number here is 0 a wall, 1 an open cell, 2 the start, 3 the goal or 4 the path", place)
        shown = repr(symbol) if isinstance(symbol, str) and len(symbol) < 10 else f"a {type(symbol).__name__}"
        raise PuzzleError(f"{shown} is none of '#' a wall, '.' an open cell, 'S' the start and 'G' the goal", place)

    def _refuse_all_but_one(self, cells: Tokens, name: str, symbol: str) -> None:
        if not len(cells):
            raise PuzzleError(f"the maze has no {name}; write one '{symbol}'")
        if len(cells) > 1:
            one, other = (cell_name(*divmod(int(cell), self.size)) for cell in cells[:2])
            raise PuzzleError(f"the maze has {len(cells)} {name}s, as in {one} and {other}; write one '{symbol}'")
