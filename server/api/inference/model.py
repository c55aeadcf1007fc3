"""A model as the protocol sees it: the tensor that it takes and those that it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks import Task
from gram.server.api.inference.schemas import ModelMetadata, TensorMetadata
from gram.server.api.inference.tensors import BYTES, Tensor
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
    dtype: type
    padding: object
    what: str
    of: Callable[[RankedCandidate], object]
    rank: int = 2

    def tensor(self, name: str, answers: list[SolveResponse]) -> Tensor:
        """The tensor of a batch."""
        rows: list[list[NDArray[Any]]] = [
            [np.asarray(self.of(candidate), self.dtype).ravel() for candidate in a.candidates] for a in answers
        ]
        most = max(map(len, rows))
        width = max((values.size for row in rows for values in row), default=1)
        array: NDArray[Any] = np.full((len(rows), most, width), self.padding, self.dtype)
        for puzzle, row in enumerate(rows):
            for place, values in enumerate(row):
                array[puzzle, place, : values.size] = values
        return Tensor(name, array if self.rank > 2 else array[:, :, 0])


OUTPUTS: dict[str, Output] = {
    "candidates": Output(
        "INT32", np.int32, -1, "the answer as numbers, row by row: `grid` in POST /v1/solve", lambda c: c.grid, rank=3
    ),
    "text": Output(BYTES, object, "", "the answer as people write it", lambda c: c.text),
    "scores": Output("FP32", np.float32, 0, "the reward model's score of the answer, from 0 to 1", lambda c: c.score),
    "valid": Output("BOOL", np.bool_, False, "whether the exact checker finds the answer valid", lambda c: c.valid),
    "steps": Output("INT32", np.int32, 0, "the supervision steps of the trajectory that gave it", lambda c: c.steps),
    "votes": Output("INT32", np.int32, 0, "the number of trajectories that gave it; 0 marks padding", lambda c: c.votes),
}
"""The tensors that a model gives, by their names, in the order in which they are sent."""


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
