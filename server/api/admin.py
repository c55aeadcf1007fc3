"""The administrator's calls: loading and unloading models while the server runs."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from gram.models.config import CheckpointError
from gram.server.api.problems import ProblemError, documented
from gram.server.api.schemas import LoadRequest, ModelInfo
from gram.server.api.service import service_of
from gram.server.catalog import checkpoint_in

v1 = APIRouter(prefix="/v1/models")
"""The routes that need an admin's key."""


@v1.post(
    "",
    status_code=201,
    summary="Load a model",
    responses=documented(400, 403, 404, 409, 413, 415, 422, 503),
)
async def load(body: LoadRequest, request: Request) -> ModelInfo:
    """Load a checkpoint from the server's --models-root on every device. Running requests pause for a moment."""
    service = service_of(request)
    root = service.settings.models_root
    if root is None:
        raise ProblemError(403, "this server loads no models while it runs; start it with --models-root to allow that")
    try:
        return service.info(await service.load(checkpoint_in(root, body.name)))
    except FileNotFoundError as error:
        raise ProblemError(404, str(error), "name") from error
    except CheckpointError as error:
        raise ProblemError(422, str(error), "name") from error


@v1.delete(
    "/{name}",
    status_code=204,
    response_class=Response,
    summary="Unload a model",
    responses=documented(403, 404),
)
async def unload(name: Annotated[str, Path(description="a name from GET /v1/models")], request: Request) -> None:
    """Admit no more requests for a model, wait for those that run, and free its memory."""
    service = service_of(request)
    service.model(name)
    await service.unload(name)
