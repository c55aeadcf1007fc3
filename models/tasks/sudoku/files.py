"""Where the Sudokus are in a text: one a line, boards of n lines, and what popular programs write around them."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gram.models.tasks.base import ContradictionError
from gram.models.tasks.spelling import bracketed, is_comment
from gram.models.tasks.sudoku.codec import BOX_ROWS, Codec

FILES = [
    "Boards of n lines, one below the other, with drawn lines between the rows or without. Titles such as 'Grid 01' are "
    "passed over.",
    "Comments, which begin with '#' or '%' (SudoCue's .sdk, the output of generators).",
    "Lines with a hash, a rating, a solution or other fields beside the puzzle (HoDoKu's library, .sdm, collections).",
    "SadMan's .sdk: the section [Puzzle]; other sections are passed over.",
    "OpenSudoku's XML: each game's data.",
]
"""What is found in files beside a puzzle a line."""
_SECTION = re.compile(r"\[(\w+)\]")
_TITLE = re.compile(
    r"((grid|puzzle|sudoku|board|game|nr|no)[\s.:#]*)?[0-9]{0,4}[.:)]?"
    r"|[0-9x]{3,5} \([0-9x]{3,5}\) sudoku puzzle|difficulty: .*",
    re.IGNORECASE,
)
_GAME = re.compile(r"<game\b[^>]*?\bdata=[\"']([^\"'<]*)")


_MOST_TAG = 1 << 16
"""The longest tag that is read."""


class Found(NamedTuple):
    """A puzzle in a text."""

    number: int
    """The number of the line in which it begins, from 1."""
    text: str
    whole: bool
    """Whether it has as many symbols as a board; if not, it is a line that was not understood, or a few rows."""


def find_puzzles(codec: Codec, lines: Iterable[str]) -> Iterator[Found]:
    """The puzzles of a text, in order, and what is neither a puzzle nor a comment, a title or a drawn line.

    Read are lines of a symbol for each cell, whatever stands beside them; boards of n lines, one below the other; a section
    [Puzzle] without the sections after it (SadMan); the games of an XML file (OpenSudoku).
    """
    rows: list[str] = []
    start, of_other_section, boxes = 0, False, ""

    def board() -> Iterator[Found]:
        if rows:
            yield Found(start, boxes + "\n".join(rows), whole=len(rows) == codec.size)
            rows.clear()

    for number, line in _whole_tags(bracketed(lines)):
        text = line.strip()
        blank = rows and "-" in rows[-1] and text == "-" * codec.size  # where '-' is a blank, it is no drawn line
        if (blank or codec.is_row(line)) and not of_other_section:
            start = start if rows else number
            rows.append(line)
            if len(rows) == codec.size:
                yield from board()
        elif BOX_ROWS.fullmatch(text):
            boxes = f"{text}\n"
        elif section := _SECTION.fullmatch(text):
            yield from board()
            of_other_section = section[1].lower() != "puzzle"
        elif text.startswith("<"):
            yield from (Found(number, data, codec.is_whole(data)) for data in _GAME.findall(text))
        elif not text and len(rows) % codec.box_rows:
            yield from board()
        elif not text or is_comment(text) or of_other_section or codec.is_ruler(text):
            continue
        else:
            yield from board()
            if codec.is_whole(line):
                yield Found(number, boxes + line, whole=True)
            elif not _TITLE.fullmatch(text):
                yield Found(number, boxes + text, whole=False)
    yield from board()


def _whole_tags(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; those of an XML tag stand together, as one."""
    first, tag = 0, ""
    for number, line in lines:
        if tag or line.lstrip().startswith("<"):
            first = first if tag else number
            tag = f"{tag}\n{line}" if tag else line
            if tag.count("<") <= tag.count(">") or len(tag) > _MOST_TAG:
                yield first, tag
                tag = ""
        else:
            yield number, line
    if tag:
        yield first, tag


def only_puzzle(codec: Codec, text: str) -> str:
    """The board in a text of several lines, or the text if nothing is sure. Raises ContradictionError if there are several."""
    found = [*find_puzzles(codec, text.splitlines())] if "\n" in text else []
    whole = [puzzle.text for puzzle in found if puzzle.whole]
    if len(whole) > 1:
        message = f"this text has {len(whole)} puzzles; send one, or solve them all with gram solve --input"
        raise ContradictionError(message)
    return whole[0] if whole and len(found) == 1 else text
