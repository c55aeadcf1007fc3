"""What the Open Inference Protocol says, as the OpenAPI document shows it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gram.server.sampling.requests import DEFAULT_TASK, TimedOptions

VERSION = "1"
"""The version of every model: a server has one checkpoint of a name."""

TensorName = Annotated[str, Field(description="the tensor's name")]
Datatype = Annotated[str, Field(description="the type of its values, such as `BYTES` or `INT32`")]
Shape = Annotated[list[int], Field(description="its dimensions, the puzzles of the batch first")]
Values = Annotated[list[JsonValue] | None, Field(description="its values, in one list; null if they follow as bytes")]
Id = Annotated[str | None, Field(description="a name that the caller gives the request, and that the answer repeats")]


class Live(BaseModel):
    """The answer of a probe."""

    live: Literal[True] = Field(True, description="always true; a server that is not does not answer")


class Ready(BaseModel):
    """The answer of a probe."""

    ready: Literal[True] = Field(True, description="always true; a server that is not ready answers 503")


class ModelReady(Ready):
    """The answer of a model's probe."""

    name: str = Field(description="the model's name")


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str = Field("gram", description="always gram")
    version: str = Field(description="the version of the server")
    extensions: list[str] = Field(["binary_tensor_data"], description="the extensions of the protocol that it knows")


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives."""

    name: TensorName
    datatype: Datatype
    shape: list[int] = Field(description="its dimensions; -1 is of any size")


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str = Field(description="the model's name")
    versions: list[str] = Field([VERSION], description="the versions that may be asked for")
    platform: str = Field("gram_safetensors", description="always gram_safetensors")
    inputs: list[TensorMetadata] = Field(description="the tensor that it takes")
    outputs: list[TensorMetadata] = Field(description="the tensors that it gives")


class InferenceParameters(TimedOptions):
    """The options of POST /v1/solve, for each puzzle of the batch, and those of the protocol."""

    timeout: int | None = Field(
        None,
        ge=1,
        description="timeout_seconds in microseconds, as tritonclient's argument `timeout` sends it; give one of them",
    )
    binary_data_output: bool = Field(False, description="send all output tensors as bytes behind the JSON")


class InputParameters(BaseModel):
    """How an input tensor is sent. Others, such as a codec's `content_type`, are not read."""

    binary_data_size: int | None = Field(
        None, ge=0, description="the number of its bytes behind the JSON; null if its values are in `data`"
    )
    shared_memory_region: JsonValue = Field(None, description="refused; send the values")


class RequestInput(BaseModel):
    """An input tensor."""

    model_config = ConfigDict(extra="forbid")

    name: TensorName
    datatype: Datatype
    shape: Shape
    parameters: InputParameters | None = Field(None, description="how it is sent")
    data: Values = None


class OutputParameters(BaseModel):
    """How to send an output tensor."""

    binary_data: bool | None = Field(
        None, description="send it as bytes behind the JSON, or as values in it (default: as `binary_data_output` says)"
    )
    classification: JsonValue = Field(None, description="refused; `top` limits the candidates")
    shared_memory_region: JsonValue = Field(None, description="refused; the values are sent")


class RequestOutput(BaseModel):
    """An output tensor that is asked for."""

    model_config = ConfigDict(extra="forbid")

    name: TensorName
    parameters: OutputParameters | None = Field(None, description="how to send it")


class InferenceRequest(BaseModel):
    """A batch of puzzles, and how to solve them."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "parameters": {"num_trajectories": 20, "seed": 1},
                    "inputs": [{"name": "puzzle", "datatype": "BYTES", "shape": [2], "data": ["g7 a4", "h1"]}],
                }
            ]
        },
    )

    id: Id = None
    model_name: str | None = Field(None, description="not read; the path names the model")
    model_version: str | None = Field(None, description="not read; the path names the version")
    parameters: InferenceParameters | None = Field(None, description="how to sample and rank")
    inputs: list[RequestInput] = Field(description="the tensor `puzzle`")
    outputs: list[RequestOutput] | None = Field(None, description="the tensors to send (default: all)")


class ResponseTensorParameters(BaseModel):
    """How an output tensor is sent."""

    binary_data_size: int = Field(description="the number of its bytes behind the JSON")


class ResponseOutput(BaseModel):
    """An output tensor."""

    name: TensorName
    datatype: Datatype
    shape: Shape
    parameters: ResponseTensorParameters | None = Field(None, description="how it is sent, if not in `data`")
    data: Values = None


class ResponseParameters(BaseModel):
    """What holds for the whole batch."""

    seed: int = Field(description="the seed of every puzzle's run: with it, the same request gives the same answer")
    complete: bool = Field(description="false if a deadline came before all trajectories had ended")


class InferenceResponse(BaseModel):
    """The answers to a batch."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str = Field(description="the model that answers")
    model_version: str = Field(VERSION, description="its version")
    id: Id = None
    parameters: ResponseParameters = Field(description="what holds for the whole batch")
    outputs: list[ResponseOutput] = Field(description="the tensors that were asked for, in that order")


class InferenceError(BaseModel):
    """Every error under /v2."""

    error: str = Field(description="what is wrong, where, and what to do")


EXAMPLE_MODEL = DEFAULT_TASK.name
"""A model for the examples of the OpenAPI document."""
