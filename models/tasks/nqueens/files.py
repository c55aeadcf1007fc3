"""The boards of a file: one a line, or n lines with a row each."""

from collections.abc import Iterable, Iterator

from gram.models.tasks.nqueens import facts
from gram.models.tasks.nqueens.codec import Codec
from gram.models.tasks.spelling import bracketed, is_comment


def find_boards(codec: Codec, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The boards with the number of the line in which each begins, from 1.

    Rows stand together until the board is whole; so do lines of a program, each with one fact, until another line comes. Any
    other line is a board of its own, right or wrong, but for those that are empty, drawn or comments.
    """
    block: list[str] = []
    start, of_facts = 0, False
    for number, text in bracketed(lines):
        is_fact, is_row = facts.is_statement(text), codec.is_row(text)
        if block and codec.is_ruler(text):
            continue
        if block and (of_facts != is_fact or not (is_fact or is_row)):
            yield start, "\n".join(block)
            block = []
        if is_fact or is_row:
            start = start if block else number
            of_facts = is_fact
            block.append(text)
            if is_row and len(block) == codec.size:
                yield start, "\n".join(block)
                block = []
        elif text.strip() and not is_comment(text) and not codec.is_ruler(text):
            yield number, text.strip()
    if block:
        yield start, "\n".join(block)
