"""A model as the protocol sees it: the tensor that it takes and those that it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks import Task
from gram.server.api.inference.schemas import ModelMetadata, TensorMetadata
from gram.server.api.inference.tensors import BYTES, NUMBERS, Tensor
from gram.server.api.problems import ProblemError
from gram.server.catalog import LoadedModel
from gram.server.sampling.answers import RankedCandidate, SolveResponse

PUZZLE = "puzzle"
MAX_PUZZLES = 1000
"""The puzzles of a batch. More are better sent in several requests, which then share the server with others."""


@dataclass(frozen=True)
class Output:
    """A tensor [puzzles, candidates], or with a further dimension: a figure of each candidate, the best first.

    `padding` stands where a puzzle has fewer candidates than another.
    """

    datatype: str
    padding: object
    of: Callable[[RankedCandidate], object]
    rank: int = 2

    def tensor(self, name: str, answers: list[SolveResponse]) -> Tensor:
        """The tensor of a batch."""
        rows = [self._row(answer.candidates) for answer in answers]
        shape = len(rows), max(len(row) for row in rows), max(row.shape[1] for row in rows)
        array = np.full(shape, self.padding, self._dtype)
        for puzzle, row in enumerate(rows):
            array[puzzle, : len(row), : row.shape[1]] = row
        return Tensor(name, array if self.rank > 2 else array[:, :, 0])

    def _row(self, candidates: list[RankedCandidate]) -> NDArray[Any]:
        """The figures of a puzzle's candidates [candidates, numbers]."""
        if not candidates:  # all trajectories were pruned or dropped
            return np.empty((0, 1), self._dtype)
        return np.array([self.of(candidate) for candidate in candidates], self._dtype).reshape(len(candidates), -1)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return NUMBERS.get(self.datatype, np.dtype(object))


OUTPUTS: dict[str, Output] = {
    "candidates": Output("INT32", -1, lambda candidate: candidate.grid, rank=3),
    "text": Output(BYTES, "", lambda candidate: candidate.text),
    "scores": Output("FP32", 0, lambda candidate: candidate.score),
    "valid": Output("BOOL", False, lambda candidate: candidate.valid),
    "steps": Output("INT32", 0, lambda candidate: candidate.steps),
    "votes": Output("INT32", 0, lambda candidate: candidate.votes),
}
"""The tensors that a model gives, in the order in which they are sent. docs/inference-protocol.md explains them."""


def outputs_of(task: Task) -> dict[str, Output]:
    """The tensors that a model of a task gives. Without a checker nothing is valid or wrong."""
    return {name: output for name, output in OUTPUTS.items() if task.checked or name != "valid"}


def describe(model: LoadedModel) -> ModelMetadata:
    """The metadata of a model."""
    return ModelMetadata(
        name=model.name,
        inputs=[TensorMetadata(name=PUZZLE, datatype=BYTES, shape=[-1])],
        outputs=[
            TensorMetadata(name=name, datatype=output.datatype, shape=[-1] * output.rank)
            for name, output in outputs_of(model.task).items()
        ],
    )


def puzzles_of(inputs: list[Tensor]) -> list[JsonValue]:
    """The puzzles of a batch, each as POST /v1/solve takes it: a text, or numbers in lists. Raises ProblemError."""
    if [tensor.name for tensor in inputs] != [PUZZLE]:
        given = ", ".join(repr(tensor.name[:40]) for tensor in inputs) or "nothing"
        raise ProblemError(400, f"a model takes one tensor, {PUZZLE!r}, and was given {given}", "inputs")
    array = inputs[0].array
    if len(array) > MAX_PUZZLES:
        raise ProblemError(422, f"a request may have {MAX_PUZZLES} puzzles; this one has {len(array)}", PUZZLE)
    if array.dtype == object:
        if array.size != len(array):
            raise ProblemError(400, f"texts have the shape [puzzles] or [puzzles, 1], not {[*array.shape]}", PUZZLE)
        return [*array.ravel()]
    if array.ndim < 2 or array.dtype.kind not in "iu":
        detail = (
            f"send texts (BYTES), or whole numbers in the shape [puzzles, numbers], not {inputs[0].datatype} {[*array.shape]}"
        )
        raise ProblemError(400, detail, PUZZLE)
    return [*array.tolist()]
