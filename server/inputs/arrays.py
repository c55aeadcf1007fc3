"""Files of puzzles as arrays: data set folders, and NumPy's .npy and .npz."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.models.data_sets import ABOUT_FILE, DataSet, DataSetError, labels_of, numbers, open_described, open_folder
from gram.models.tasks import Task

_MAGIC = (b"\x93NUMPY", b"PK\x03\x04")
"""What .npy and .npz begin with."""


def is_array(path: Path) -> bool:
    """Whether a path is a data set folder or a file of arrays."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(max(map(len, _MAGIC))).startswith(_MAGIC)


def open_arrays(path: Path, task: Task) -> DataSet:
    """Open the puzzles of a task, a puzzle a row, with their answers if there are any. Raises DataSetError.

    Where no dataset.json says whether 0 is padding, the numbers tell.
    """
    if path.is_dir():
        data = open_folder(path, "test")
    elif path.with_name(ABOUT_FILE).exists():
        data = open_described(path)
    else:
        inputs, labels = _bare(path, task), labels_of(path)
        answers = _bare(labels, task) if labels != path and labels.exists() else None
        padding = _padding(path, inputs, task)
        data = DataSet(path, inputs, answers, task.vocab_size, padding, ignored=0 if padding else None)
    data.fit(task.name, task.seq_len, task.vocab_size)
    return data


def _bare(path: Path, task: Task) -> NDArray[np.integer]:
    """The rows [n, N] of an array that says nothing of itself: also one puzzle alone, and whole numbers kept as floats."""
    array = numbers(path)
    return array.reshape(1, -1) if array.ndim < 2 or array.size == task.seq_len else array.reshape(len(array), -1)


def _padding(path: Path, inputs: NDArray[np.integer], task: Task) -> int:
    least, most = int(inputs.min()), int(inputs.max())
    if least >= 1 and most == task.vocab_size:
        return 1
    if least >= 1 and most > 1:
        raise DataSetError(f"{path}: is 1 a blank here? Put {ABOUT_FILE} with its vocab_size and seq_len beside the file")
    return 0
