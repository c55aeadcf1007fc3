"""Tensors on the wire: as values in the JSON, or as bytes behind it (the protocol's binary tensor data extension)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.server.api.problems import ProblemError

NUMBERS = {
    "BOOL": np.dtype("?"),
    **{f"{'U' * (kind == 'u')}INT{8 * size}": np.dtype(f"<{kind}{size}") for kind in "ui" for size in (1, 2, 4, 8)},
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The datatypes of numbers, as numpy has them; all are little-endian on the wire."""
BYTES = "BYTES"
"""The datatype of texts, in UTF-8. As bytes, each follows its length as 4 bytes, little-endian."""
_LENGTH_BYTES = 4
MAX_RANK = 3


@dataclass(frozen=True)
class Tensor:
    """A named array; one of texts has the dtype object."""

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        if self.array.dtype == object:
            return BYTES
        return next(name for name, dtype in NUMBERS.items() if dtype == self.array.dtype)

    def values(self) -> list[Any]:
        """The values for JSON, the last dimension first. None of them may be NaN or infinite."""
        values: list[Any] = self.array.ravel().tolist()
        return values

    def data(self) -> bytes:
        """The values as bytes, in the same order."""
        if self.datatype != BYTES:
            return np.ascontiguousarray(self.array, self.array.dtype.newbyteorder("<")).tobytes()
        texts = [text.encode() for text in self.array.ravel()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)


def count(shape: Sequence[int], place: str) -> int:
    """The number of elements of a shape. Raises ProblemError if it can't be the shape of a tensor with elements."""
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
        raise ProblemError(400, f"give 1 to {MAX_RANK} dimensions, each of them 1 or more", f"{place}.shape")
    return math.prod(shape)


def from_json(name: str, datatype: str, shape: Sequence[int], data: list[Any], place: str) -> Tensor:
    """A tensor whose values stand in the JSON, in one list or in nested ones. Raises ProblemError.

    place: the tensor's place in the request, for errors.
    """
    expected = count(shape, place)
    values = _flat(data, shape, place) if data and isinstance(data[0], list) else data
    if len(values) != expected:
        message = f"there are {len(values)} values, but the shape {[*shape]} has {expected}"
        raise ProblemError(400, message, f"{place}.data")
    if datatype == BYTES:
        kinds: tuple[type, ...] = (str,)
    elif (dtype := _dtype(datatype, place)).kind == "f":
        kinds = (float, int)
    else:
        kinds = (bool,) if dtype.kind == "b" else (int,)
    if (wrong := next((at for at, value in enumerate(values) if type(value) not in kinds), None)) is not None:
        raise ProblemError(400, f"value {wrong} is no {datatype}", f"{place}.data")
    if datatype == BYTES:
        return Tensor(name, _objects(values).reshape(shape))
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= min(values) <= max(values) <= limits.max:
            raise ProblemError(400, f"{datatype} holds numbers from {limits.min} to {limits.max}", f"{place}.data")
    try:
        return Tensor(name, np.array(values, dtype).reshape(shape))
    except OverflowError as error:
        raise ProblemError(400, f"a number is too large for {datatype}", f"{place}.data") from error


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes, place: str) -> Tensor:
    """A tensor whose values stand behind the JSON. Raises ProblemError."""
    expected = count(shape, place)
    if datatype == BYTES:
        return Tensor(name, _objects(_texts(data, expected, place)).reshape(shape))
    dtype = _dtype(datatype, place)
    if len(data) != expected * dtype.itemsize:
        message = f"{len(data)} bytes are no {datatype} of the shape {[*shape]}, which takes {expected * dtype.itemsize}"
        raise ProblemError(400, message, f"{place}.parameters.binary_data_size")
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise ProblemError(400, "the bytes of a BOOL are 0 and 1", place)
    return Tensor(name, np.frombuffer(data, dtype).reshape(shape))


def _dtype(datatype: str, place: str) -> np.dtype[Any]:
    try:
        return NUMBERS[datatype]
    except KeyError:
        known = ", ".join([*NUMBERS, BYTES])
        raise ProblemError(400, f"{datatype[:20]!r} is none of {known}", f"{place}.datatype") from None


def _texts(data: bytes, expected: int, place: str) -> list[str]:
    """The texts that each follow their length."""
    texts: list[str] = []
    at = 0
    while at < len(data) and len(texts) < expected:
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin], "little")
        if begin > len(data) or at > len(data):
            raise ProblemError(400, f"element {len(texts)} ends after the {len(data)} bytes of the tensor", place)
        try:
            texts.append(data[begin:at].decode())
        except UnicodeDecodeError as error:
            raise ProblemError(400, f"element {len(texts)} is not UTF-8: {error.reason}", place) from error
    if at != len(data) or len(texts) != expected:
        message = f"the {len(data)} bytes hold {len(texts)} elements"
        message += f" and {len(data) - at} bytes more" if at != len(data) else ""
        raise ProblemError(400, f"{message}, but the shape has {expected}", place)
    return texts


def _objects(texts: list[str]) -> NDArray[np.object_]:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _flat(data: list[Any], shape: Sequence[int], place: str) -> list[Any]:
    """The values of lists that are nested as the shape says."""
    if len(data) != shape[0] or (len(shape) > 1 and not all(isinstance(row, list) for row in data)):
        raise ProblemError(400, "the lists are not nested as the shape says, nor is it one list", f"{place}.data")
    if len(shape) == 1:
        return data
    return [value for row in data for value in _flat(row, shape[1:], place)]
