"""Data sets as TRM and HRM build them: puzzles and answers as symbols in NumPy's format, and a dataset.json beside them."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from gram.models.config import describe
from gram.models.tasks.base import Tokens

ABOUT_FILE = "dataset.json"
INPUTS_FILE, LABELS_FILE = "all__inputs.npy", "all__labels.npy"
UNSCORED = -1
"""What stands in an answer where any symbol is right."""
_CHUNK = 1024
"""Rows that are read from the disk together."""


class DataSetError(ValueError):
    """A data set can't be read, or is not one of the model; the message names the file, the place and what to do."""


class About(BaseModel):
    """What dataset.json says, as far as it matters here."""

    vocab_size: int = Field(gt=1, description="the symbols and padding")
    seq_len: int = Field(gt=0)
    pad_id: Literal[0] = 0
    ignore_label_id: int | None = Field(0, description="cells with this label are not scored")


@dataclass(frozen=True)
class DataSet:
    """Puzzles and, perhaps, their answers [n, N], which stay on the disk. Symbol s is stored as s + `padding`."""

    file: Path
    """That of the puzzles. The answers are in the one with "labels" for "inputs" in its name."""
    inputs: NDArray[np.integer]
    labels: NDArray[np.integer] | None
    vocab_size: int
    """The number of symbols, without padding."""
    padding: int
    """1 if 0 stands for padding."""
    ignored: int | None = None
    """The label of cells that are not scored."""

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != self.inputs.shape:
            sizes = f"{_size(self.labels.shape)}, but {self.file.name} {_size(self.inputs.shape)}"
            raise DataSetError(f"{labels_of(self.file)} has {sizes}; write an answer for each puzzle")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def seq_len(self) -> int:
        return int(self.inputs.shape[1])

    def puzzles(self, rows: slice | NDArray[np.int64]) -> Tokens:
        """The puzzles in these rows [n, N]. Raises DataSetError."""
        return self._symbols(self.inputs[rows], rows, self.file)

    def answers(self, rows: slice | NDArray[np.int64]) -> Tokens:
        """The answers in these rows [n, N], UNSCORED where any symbol is right. Raises DataSetError."""
        if self.labels is None:
            raise DataSetError(f"{labels_of(self.file)} is missing; without it nothing says what the answers are")
        stored = self.labels[rows]
        scored = np.ones(stored.shape, dtype=bool) if self.ignored is None else stored != self.ignored
        symbols = self._symbols(np.where(scored, stored, self.padding), rows, labels_of(self.file))
        return np.where(scored, symbols, UNSCORED)

    def rows(self) -> Iterator[tuple[Tokens, Tokens | None]]:
        """Each puzzle [N] and its answer, if there are answers. Reads a chunk of rows at a time. Raises DataSetError."""
        for first in range(0, len(self), _CHUNK):
            rows = slice(first, first + _CHUNK)
            puzzles = self.puzzles(rows)
            yield from zip(puzzles, [None] * len(puzzles) if self.labels is None else self.answers(rows), strict=True)

    def fit(self, name: str, seq_len: int, vocab_size: int) -> None:
        """Raise DataSetError unless its puzzles have the sizes of a task or a model of this name."""
        for what, own, other in (("cells", self.seq_len, seq_len), ("symbols", self.vocab_size, vocab_size)):
            if own != other:
                raise DataSetError(
                    f"{self.file}: its puzzles have {own} {what}, those of {name} have {other}; name a data set of {name}"
                )

    def _symbols(self, stored: NDArray[np.integer], rows: slice | NDArray[np.int64], file: Path) -> Tokens:
        symbols = stored.astype(np.int64) - self.padding
        if len(wrong := np.argwhere((symbols < 0) | (symbols >= self.vocab_size))):
            row, cell = wrong[0]
            number = (rows.start + row if isinstance(rows, slice) else rows[row]) + 1
            most = self.vocab_size - 1 + self.padding
            raise DataSetError(
                f"{file}, row {number}, cell {cell + 1}: {stored[row, cell]} is no symbol; write {self.padding} to {most}"
                + (", since 0 is padding" if self.padding else "")
            )
        return symbols


def labels_of(inputs: Path) -> Path:
    """The file of the answers to these puzzles; the same file if its name does not say where they are."""
    return inputs.with_name(inputs.name.replace("inputs", "labels"))


def find(path: Path, split: Literal["train", "test"]) -> Path | None:
    """The folder of a data set: this one, or the split in it; None if there is none."""
    return next((folder for folder in (path, path / split) if (folder / ABOUT_FILE).exists()), None)


def open_folder(path: Path, split: Literal["train", "test"]) -> DataSet:
    """Open a folder with dataset.json, all__inputs.npy and perhaps all__labels.npy, or its split. Raises DataSetError."""
    folder = find(path, split)
    if folder is None:
        raise DataSetError(
            f"{path} is no data set: neither it nor {split}/ in it has {ABOUT_FILE}, {INPUTS_FILE} and {LABELS_FILE}"
        )
    return open_described(folder / INPUTS_FILE)


def open_described(inputs: Path) -> DataSet:
    """Open puzzles beside which dataset.json lies. Raises DataSetError."""
    about = _about(inputs.with_name(ABOUT_FILE))
    labels = labels_of(inputs)
    answers = read_array(labels) if labels != inputs and labels.exists() else None
    data = DataSet(inputs, read_array(inputs), answers, about.vocab_size - 1, padding=1, ignored=about.ignore_label_id)
    if data.seq_len != about.seq_len:
        raise DataSetError(f"{inputs}: its rows have {data.seq_len} cells, but {ABOUT_FILE} says {about.seq_len}; correct one")
    return data


def read_array(path: Path) -> NDArray[np.integer]:
    """An array of whole numbers, a puzzle a row, as [n, N]. Raises DataSetError."""
    array = numbers(path)
    if array.ndim < 2:
        raise DataSetError(f"{path} has {array.dtype} of shape {list(array.shape)}; puzzles are whole numbers of shape [n, N]")
    return array.reshape(len(array), -1)


def numbers(path: Path) -> NDArray[np.integer]:
    """The whole numbers of a .npy, which stay on the disk, or of a .npz with one array. Raises DataSetError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            (name,) = array.files
            array = array[name]
    except FileNotFoundError as error:
        raise DataSetError(f"{path} is missing; a data set is {ABOUT_FILE}, {INPUTS_FILE} and {LABELS_FILE}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataSetError(f"{path} is no array, or was cut off; write it with numpy.save") from error
    if array.dtype.kind == "f" and np.all(array == np.floor(array)) and np.all(np.isfinite(array)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or not array.size:
        raise DataSetError(f"{path} has {array.dtype} of shape {list(array.shape)}; puzzles are whole numbers of shape [n, N]")
    whole: NDArray[np.integer] = array
    return whole


def _about(path: Path) -> About:
    try:
        return About.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataSetError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise DataSetError(f"{path}: {describe(error)}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]:,} rows of {shape[1]} cells"
