"""What an operator asks of a server: which version it is, what it runs on, and with which settings."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, JsonValue

from gram import __version__
from gram.server.api.service import service_of

public = APIRouter()
"""What is open to all."""
guarded = APIRouter()
"""What needs a key on a server with API keys."""


class Version(BaseModel):
    """Which server this is."""

    version: str = Field(description="the version of this project")


class EngineInfo(BaseModel):
    """An engine process."""

    device: str = Field(description="the device that it computes on")
    dtype: str = Field(description="the type of the numbers that it computes with")
    slots: int = Field(description="trajectories of each model that it steps together")


class ServerInfo(Version):
    """What a server runs on, and with which settings."""

    python_version: str = Field(description="the version of Python")
    torch_version: str = Field(description="the version of PyTorch")
    engines: list[EngineInfo] = Field(description="the engines that have been ready")
    kernels: dict[str, str] = Field(description="by model, who makes its steps; as in GET /v1/models")
    settings: dict[str, JsonValue] = Field(description="the settings, as flags or environment variables gave them")


@public.get("/version", summary="The server's version")
async def get_version() -> Version:
    """Answer without a key and without an engine."""
    return Version(version=__version__)


@guarded.get("/server_info", summary="What the server runs on, and its settings")
async def server_info(request: Request) -> ServerInfo:
    """Describe the engines and the settings, for a report of a problem or to compare two servers."""
    service = service_of(request)
    return ServerInfo(
        version=__version__,
        python_version=platform.python_version(),
        torch_version=version("torch"),
        engines=[
            EngineInfo(device=e.device, dtype=e.dtype.removeprefix("torch."), slots=e.slots) for e in service.engines.values()
        ],
        kernels=service.fleet.kernels,
        settings=service.settings.model_dump(mode="json"),
    )
