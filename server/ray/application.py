"""The application that `serve run deploy/ray/config.yaml` starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from gram.server.catalog import bundled_models
from gram.server.ray.deployments import API, Engine
from gram.server.settings import ServerSettings

RAY = "2.60"
"""The minor version of Ray that this is made for and tested with."""
_ROOM = 10_000
"""Requests that a replica of the API may have open: more than the server's own limits admit, which refuse with a 429."""
_LAST_SECONDS = 10
"""Time for a replica to go after the grace period."""


class Arguments(BaseModel):
    """The `args` of the application."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field({}, description="as `gram serve` takes them, such as max_queued: 1000")
    engines: dict[str, list[Path]] = Field(
        default_factory=lambda: {"engine": bundled_models()},
        description="deployments of engines, by name, and the models of each: checkpoint folders, or names of bundled ones",
    )
    options: dict[str, dict[str, Any]] = Field(
        {}, description="Ray Serve's options of the deployments, for programs; a file has them under `deployments`"
    )


def build(arguments: Arguments) -> Application:
    """The application: a deployment for each group of models, and the API. Their `deployments` options say how many."""
    check_version()
    if "jobs" in arguments.settings:
        raise ValueError("the address of the jobs may hold a password, and all can read this: set GRAM_JOBS on the machines")
    groups = {
        group: ServerSettings.model_validate({**arguments.settings, "model": [_folder(name) for name in names]})
        for group, names in arguments.engines.items()
    }
    settings = ServerSettings.model_validate(
        {**arguments.settings, "model": [folder for group in groups.values() for folder in group.model]}
    )
    own = {"max_ongoing_requests": _ROOM, "ray_actor_options": {"num_cpus": 0}} | arguments.options.get("api", {})
    api = serve.deployment(API).options(name="api", **(_common(settings) | own))
    return api.bind(_told(settings), *engines(groups, arguments.options))


def engines(groups: Mapping[str, ServerSettings], options: Mapping[str, Mapping[str, Any]]) -> list[Application]:
    """A deployment of engines for each group of models. `options`: Ray Serve's, by the name of the group."""
    return [
        serve.deployment(Engine).options(name=group, **{**_common(settings), **options.get(group, {})}).bind(_told(settings))
        for group, settings in groups.items()
    ]


def check_version() -> None:
    """Raise RuntimeError if another Ray is installed than the one that this is made for."""
    if not ray.__version__.startswith(f"{RAY}."):
        raise RuntimeError(f"Ray {ray.__version__} is installed, and this server needs {RAY}: pip install 'gram-server[ray]'")


def _told(settings: ServerSettings) -> dict[str, Any]:
    """What a replica is told, which all can read in Ray: not where the jobs are, since a password may be in their URL."""
    return settings.model_dump(mode="json", exclude={"jobs"})


def _common(settings: ServerSettings) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout_s": settings.grace_seconds + _LAST_SECONDS,
        "health_check_period_s": 2,
        "logging_config": {"enable_access_log": False},  # the server has its own
        "max_constructor_retry_count": 3,
    }


def _folder(model: Path) -> Path:
    """The folder of a model: itself, or that of the bundled one with this name."""
    return model if model.exists() else next((folder for folder in bundled_models() if folder.name == str(model)), model)
