"""The routes of the Open Inference Protocol."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from gram import __version__
from gram.server.api.inference import batch
from gram.server.api.inference.message import LENGTH_HEADER
from gram.server.api.inference.model import describe
from gram.server.api.inference.schemas import (
    EXAMPLE_MODEL,
    VERSION,
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from gram.server.api.leaving import unless_disconnected
from gram.server.api.problems import INFERENCE_PROTOCOL, ProblemError
from gram.server.api.service import Service, service_of
from gram.server.catalog import LoadedModel

v2 = APIRouter(prefix=INFERENCE_PROTOCOL)
"""The routes that need a key on a server with API keys."""
probes = APIRouter(prefix=INFERENCE_PROTOCOL)
"""The routes that are open to all."""

_JSON, _BINARY = "application/json", "application/octet-stream"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of the protocol, for the OpenAPI document."""
    return {status: {"model": InferenceError, "description": HTTPStatus(status).phrase} for status in statuses}


def _named(
    request: Request, name: Annotated[str, Path(description="a name from GET /v1/models", examples=[EXAMPLE_MODEL])]
) -> LoadedModel:
    return service_of(request).model(name)


def _of_version(
    model: Annotated[LoadedModel, Depends(_named)],
    version: Annotated[str, Path(description=f"always {VERSION}", examples=[VERSION])],
) -> LoadedModel:
    if version != VERSION:
        raise ProblemError(404, f"{model.name} has no version {version[:20]!r}; it has {VERSION}", "version")
    return model


Named = Annotated[LoadedModel, Depends(_named)]
OfVersion = Annotated[LoadedModel, Depends(_of_version)]


@probes.get("/health/live", summary="Whether the process is alive")
async def live() -> Live:
    """Answer as long as the process runs."""
    return Live()


@probes.get("/health/ready", summary="Whether an engine can answer", responses=errors(503))
async def ready(request: Request) -> Ready:
    """Answer 503 while the engines start, or if none can be started."""
    service_of(request).check_ready()
    return Ready()


@v2.get("", summary="What the server is")
async def server() -> ServerMetadata:
    """The server's name and version, and the extensions of the protocol that it knows."""
    return ServerMetadata(version=__version__)


@v2.get("/models/{name}", summary="What a model takes and gives", responses=errors(404))
async def model(model: Named) -> ModelMetadata:
    """The tensors of a model."""
    return describe(model)


@v2.get("/models/{name}/versions/{version}", summary="What a model takes and gives", responses=errors(404))
async def version(model: OfVersion) -> ModelMetadata:
    """The same, with the version."""
    return describe(model)


@v2.get("/models/{name}/ready", summary="Whether a model can answer", responses=errors(404, 503))
async def model_ready(model: Named, request: Request) -> ModelReady:
    """Answer 503 while the engines start, or if the model is out of rotation."""
    return _ready(model, service_of(request))


@v2.get("/models/{name}/versions/{version}/ready", summary="Whether a model can answer", responses=errors(404, 503))
async def version_ready(model: OfVersion, request: Request) -> ModelReady:
    """The same, with the version."""
    return _ready(model, service_of(request))


_INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "model": InferenceResponse,
            "content": {_BINARY: {}},
            "description": f"the answers; as bytes behind the JSON, whose length is in {LENGTH_HEADER}, if so asked",
        },
        **errors(400, 404, 409, 413, 415, 422, 429, 503, 504),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"}}, _BINARY: {}},
        }
    },
}


@v2.post("/models/{name}/infer", summary="Solve a batch of puzzles", **_INFER)
async def infer(model: Named, request: Request) -> Response:
    """Sample K trajectories for each puzzle; check and rank their answers as POST /v1/solve does.

    Tensors may follow the JSON as bytes; its length is then in the header Inference-Header-Content-Length. The body may be
    compressed, and needs no Content-Type.
    """
    return await _infer(model, request)


@v2.post("/models/{name}/versions/{version}/infer", summary="Solve a batch of puzzles", **_INFER)
async def infer_version(model: OfVersion, request: Request) -> Response:
    """The same, with the version."""
    return await _infer(model, request)


async def _infer(model: LoadedModel, request: Request) -> Response:
    body = await request.body()
    work = batch.infer(service_of(request), model, body, request.headers.get(LENGTH_HEADER))
    answer = await unless_disconnected(request, work)
    if answer is None:
        return Response(status_code=499)  # nobody reads it; the log and the metrics show this status
    content, length = answer
    if length is None:
        return Response(content, media_type=_JSON)
    return Response(content, media_type=_BINARY, headers={LENGTH_HEADER: str(length)})


def _ready(model: LoadedModel, service: Service) -> ModelReady:
    if reason := service.fleet.out_of_rotation.get(model.name):
        raise ProblemError(503, reason)
    service.check_ready()
    return ModelReady(name=model.name)
