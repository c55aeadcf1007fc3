"""Writes docs/formats.md from what tasks and the reader of files say: python -m gram.server.cli.formats > docs/formats.md."""

import itertools
import json
import textwrap

from gram.models.tasks import TASKS, Task
from gram.server.inputs.files import ANSWERS, PUZZLES, RATINGS

_WIDTH = 120
_HEAD = """# What is read

Every puzzle that is sent to the server, typed on the page or given to the client and to `gram solve` is read by the same
parser, that of its task. What it took the puzzle for stands in the answer, as `puzzle`. What can mean two things is
refused, with a sentence that says what to write. Where no task is named, POST /v1/solve finds it by the puzzle if only one
can be meant, and `gram solve` takes the first task that reads it.

Arrays, tensors and tuples are read as lists, also as Python and its libraries print them, and so is JSON in a text. So is
a board as the server shows it, `{{"text": ..., "grid": ...}}`.

Of a [task without code](own-data.md), a puzzle is its symbols as numbers: a list, lists of such, a text with spaces or
commas between, or a text of digits if there are at most 10 symbols.

## Files

`gram solve --input FILE` and `gram eval --data FILE` read

- a data set folder as TRM and HRM build it, or one with `test/` in it: dataset.json, all__inputs.npy and, if the answers are
  known, all__labels.npy, with 1 added to each symbol since 0 is padding ([Your own data](own-data.md));
- text, a puzzle a line, in any spelling below that fits on a line, and what is listed below for files of the task;
- NDJSON: a puzzle, or an object with a puzzle and perhaps its answer; also as one JSON list;
- CSV (also with ';' or tabs) with a first line of names. The puzzles are in the column with one of the names
  {puzzles},
  else in the first one that a task can read; the answers are in one with one of the names
  {answers},
  and how hard a puzzle is in one with one of the names {ratings};
- NumPy's .npy, or .npz with one array: tokens, a puzzle a row, and the answers in the file that has "labels" for "inputs" in
  its name. 1 is subtracted if dataset.json lies beside it, or else if the largest number says that 0 is padding.

Files may be compressed with gzip or zstd (`pip install -e '.[zstd]'`), in UTF-8 with or without a byte order mark, or in
UTF-16 with one. They are read line by line, so that they may be of any length. Answers are compared with the first
candidate by `gram solve`, and counted as [`gram eval` reports](own-data.md#3-measure).
"""


def document() -> str:
    """The content of docs/formats.md."""
    head = _HEAD.format(puzzles=_names(PUZZLES), answers=_names(ANSWERS), ratings=_names(RATINGS))
    parts = ["<!-- Written by `python -m gram.server.cli.formats`; don't edit it. -->", head.strip()]
    for _, tasks in itertools.groupby(TASKS.values(), type):
        parts += _section([*tasks])
    return "\n\n".join(parts) + "\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _section(tasks: list[Task]) -> list[str]:
    """The section of a kind of task: of its sizes, the first one with the most formats."""
    shown = max(tasks, key=lambda task: len(task.formats))
    others = [task.name for task in tasks if task is not shown]
    differ = "differs by its" if len(others) == 1 else "differ by their"
    parts = [f"## {shown.name}", _wrapped(f"{shown.title} {' and '.join(others)} {differ} numbers.")]
    for sentence, example in zip(shown.formats, shown.examples, strict=True):
        text = example if isinstance(example, str) else textwrap.fill(json.dumps(example), _WIDTH)
        parts += [_wrapped(f"{sentence[0].upper()}{sentence[1:]}:"), f"```text\n{text}\n```"]
    if shown.files:
        parts += ["In files:", "\n".join(_wrapped(f"- {sentence}") for sentence in shown.files)]
    return parts


def _wrapped(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(document(), end="")
