"""The graphs of a file: one a line, or texts of several lines."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from gram.models.tasks.coloring import dimacs, graph6, lines
from gram.models.tasks.coloring.codec import MOST_TEXT
from gram.models.tasks.spelling import bracketed, is_comment

Line = tuple[int, str]
"""A line, or a text of several, and the number of the first, from 1."""


def find_graphs(file: Iterable[str]) -> Iterator[Line]:
    """The graphs of a file, whose first line that is not a comment tells how it is read."""
    numbered = bracketed(file)
    skipped: list[Line] = []
    for number, line in numbered:
        if line.strip() and not is_comment(line):
            yield from _texts(line, chain(skipped, [(number, line)], numbered))
            return
        skipped.append((number, line))


def _texts(first: str, file: Iterator[Line]) -> Iterator[Line]:
    if first.lstrip().startswith(("{", "[", '"')) or graph6.is_word(first):
        return ((number, line.strip()) for number, line in file if line.strip() and not is_comment(line))
    if dimacs.is_dimacs(first):
        return _documents(file, dimacs.IS_PROBLEM.match)
    if lines.LISTG.match(first):
        return _documents(file, lines.LISTG.match)
    return _documents(file, None)


def _documents(file: Iterator[Line], begins: Callable[[str], object] | None) -> Iterator[Line]:
    """Texts that begin with such a line and the comments of DIMACS before it; one text, if there is no such line.

    Of a text that is too long to be read only the beginning is kept.
    """
    document: list[Line] = []
    ahead: list[Line] = []
    size, begun = 0, False
    for number, line in file:
        if begins and begins(line):
            if begun:
                yield _joined(document)
                document, size = [], 0
            begun = True
        elif begins and (not line.strip() or line.split()[0] == "c"):
            ahead.append((number, line))
            continue
        if size <= MOST_TEXT + 1:
            document += [*ahead, (number, line)]
            size += sum(len(text) + 1 for _, text in document[-len(ahead) - 1 :])
        elif not begins:
            break
        ahead = []
    if text := [*document, *ahead]:
        yield _joined(text)


def _joined(document: list[Line]) -> Line:
    return document[0][0], "\n".join(line for _, line in document)
