"""A batch: the runs of its puzzles, which are read, admitted and answered together."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

from gram.server import logs
from gram.server.api.inference import message
from gram.server.api.inference.model import PUZZLE, Output, outputs_of, puzzles_of
from gram.server.api.inference.schemas import (
    InferenceParameters,
    InferenceRequest,
    InferenceResponse,
    OutputParameters,
    RequestOutput,
    ResponseParameters,
)
from gram.server.api.inference.tensors import Tensor
from gram.server.api.problems import ProblemError
from gram.server.api.request import SamplingRun
from gram.server.api.schemas import FieldProblem
from gram.server.api.service import Service
from gram.server.catalog import LoadedModel
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.options import chosen
from gram.server.sampling.requests import SolveRequest, TimedOptions


@dataclass
class Batch:
    """A request of several puzzles: a run for each of them, with the same options and the same seed."""

    service: Service
    model: LoadedModel
    seed: int
    runs: list[SamplingRun]

    @classmethod
    async def read(cls, service: Service, model: LoadedModel, parameters: InferenceParameters, inputs: list[Tensor]) -> "Batch":
        """Check a batch as POST /v1/solve checks a request. Raises ProblemError, which names the first wrong puzzle."""
        puzzles = puzzles_of(inputs)
        seed = chosen(parameters.seed)
        options = {name: getattr(parameters, name) for name in TimedOptions.model_fields}
        options |= {"seed": seed, "timeout_seconds": _timeout(parameters)}
        limit = service.settings.max_trajectories
        if (total := len(puzzles) * parameters.num_trajectories) > limit:
            detail = f"this server allows {limit} at most, and {len(puzzles)} puzzles of so many are {total}"
            raise ProblemError(422, detail, "parameters.num_trajectories")
        runs = []
        for number, puzzle in enumerate(puzzles):
            request = SolveRequest.model_construct(model=model.name, puzzle=puzzle, **options)
            try:
                runs.append(await SamplingRun.read(service, request))
            except ProblemError as error:
                raise _placed(error, number) from error
        logs.current().num_trajectories = total
        return cls(service, model, seed, runs)

    async def answers(self) -> list[SolveResponse]:
        """The answers to all puzzles, in their order. Raises ProblemError if the batch must come later, or a run's error."""
        request = self.runs[0].request
        self.service.model(self.model.name)  # it may have been unloaded while solutions were counted
        tickets = self.service.admission.admit_together(
            len(self.runs), self.model.name, request.num_trajectories, request.timeout_seconds, stream=False
        )
        with ExitStack() as admitted:
            for ticket in tickets:
                admitted.enter_context(ticket)
            try:
                async with asyncio.TaskGroup() as group:
                    pairs = zip(self.runs, tickets, strict=True)
                    running = [group.create_task(run.result(ticket)) for run, ticket in pairs]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in running]


async def infer(service: Service, model: LoadedModel, body: bytes, length: str | None) -> tuple[bytes, int | None]:
    """Answer an inference request: body and length header in, body and length header out. Raises ProblemError."""
    request, inputs = message.read(body, length)
    wanted = _wanted(request, outputs_of(model.task))
    batch = await Batch.read(service, model, request.parameters or InferenceParameters(), inputs)
    answers = await batch.answers()
    response = InferenceResponse(
        model_name=model.name,
        id=request.id,
        parameters=ResponseParameters(seed=batch.seed, complete=all(answer.complete for answer in answers)),
        outputs=[],
    )
    return message.write(response, [(output.tensor(name, answers), binary) for name, output, binary in wanted])


def _wanted(request: InferenceRequest, outputs: dict[str, Output]) -> list[tuple[str, Output, bool]]:
    """The output tensors that are asked for, each with whether to send it as bytes. Raises ProblemError."""
    binary = bool(request.parameters and request.parameters.binary_data_output)
    wanted = []
    for number, asked in enumerate(request.outputs or [RequestOutput(name=name) for name in outputs]):
        parameters = asked.parameters or OutputParameters()
        if asked.name not in outputs:
            raise ProblemError(400, f"{asked.name[:40]!r} is none of {', '.join(outputs)}", f"outputs.{number}.name")
        for name in ("classification", "shared_memory_region"):
            if getattr(parameters, name) is not None:
                refusal = OutputParameters.model_fields[name].description
                raise ProblemError(400, f"this is {refusal}", f"outputs.{number}.parameters.{name}")
        chosen_form = binary if parameters.binary_data is None else parameters.binary_data
        wanted.append((asked.name, outputs[asked.name], chosen_form))
    return wanted


def _timeout(parameters: InferenceParameters) -> float | None:
    if parameters.timeout is None:
        return parameters.timeout_seconds
    if parameters.timeout_seconds is not None:
        raise ProblemError(422, "give this or timeout_seconds, not both", "parameters.timeout")
    return parameters.timeout / 1e6


def _placed(error: ProblemError, puzzle: int) -> ProblemError:
    """The error of a batch with a wrong puzzle, or with a wrong option of all of them."""
    match error.problem.errors:
        case [FieldProblem(place="puzzle", message=message)]:
            return ProblemError(error.problem.status, message, f"{PUZZLE}[{puzzle}]")
        case [FieldProblem(place=place, message=message)] if place in InferenceParameters.model_fields:
            return ProblemError(error.problem.status, message, f"parameters.{place}")
    return error
