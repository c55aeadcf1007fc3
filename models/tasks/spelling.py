"""What users send, as plain values: arrays, tensors, and JSON or printed values in a text become lists and numbers."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from pydantic_core import from_json

_STARTS = ("[", "{", "array(", "tensor(", "EdgeView(")
_MOST_PRINTED = 1 << 16
"""The longest text that may be a printed value."""
_WRAPPED = re.compile(r"(?:array|tensor|EdgeView)\((.*?)(?:,\s*(?:dtype|device)=[\w.:'<>]*)?\)", re.DOTALL)
_PRINTED = re.compile(r"[\[\](){}:\s,.0-9+\-eE'\"A-Za-z_?*]*")
_TUPLES = str.maketrans("()", "[]")
_NUMBER_AS_NAME = re.compile(r"(?<=[{,])(\s*)(-?[0-9]+)(?=\s*:)")
"""A number before a colon, which JSON wants in quotation marks."""
_WORDS = {"True": "true", "False": "false", "None": "null", "nan": "null"}
_WORD = re.compile(r"'([^'\"]*)'|\b(True|False|None|nan)\b|(\d\.)(?!\d)")
_GAP = re.compile(r"(?<=[\w\]\".])\s+(?=[\w\[\"\-.])")
"""Space between two values, where a printed array has no comma."""


def plain(value: object) -> object:
    """Arrays, tensors and tuples as lists, whole numbers as integers, and a text that begins with a bracket as what it says."""
    if isinstance(value, str):
        value = value.lstrip("\ufeff")
        if value.lstrip().startswith(_STARTS):
            value = _said(value.strip())
    return _plain(value)


def _plain(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def is_comment(line: str) -> bool:
    """Whether a line of a text is a comment, for any task."""
    return line.lstrip().startswith(("#", "%"))


def bracketed(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1; those of a value that begins with a bracket stand together, as one."""
    parts: list[str] = []
    first = depth = size = 0
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if parts or line.lstrip().startswith(("[", "{")):
            depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
            first = first if parts else number
            parts.append(line)
            size += len(line)
            if depth <= 0 or size > _MOST_PRINTED:
                yield first, "\n".join(parts)
                parts, depth, size = [], 0, 0
        else:
            yield number, line
    if parts:
        yield first, "\n".join(parts)


def _said(text: str) -> object:
    """The lists, or the object, that a text says, in JSON or as Python and its libraries print them; else the text itself."""
    with suppress(ValueError):
        return from_json(text, allow_inf_nan=False)
    if len(text) > _MOST_PRINTED:
        return text
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1].strip()
    if text.startswith(("[", "{")) and _PRINTED.fullmatch(text):
        text_as_json = _NUMBER_AS_NAME.sub(r'\1"\2"', _WORD.sub(_as_json, text.translate(_TUPLES)))
        with suppress(ValueError):
            return from_json(_GAP.sub(",", text_as_json), allow_inf_nan=False)
    return text


def _as_json(match: re.Match[str]) -> str:
    quoted, word, decimal = match.groups()
    if decimal:
        return f"{decimal}0"
    return _WORDS[word] if word else f'"{quoted}"'
