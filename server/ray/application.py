"""The application that `serve run deploy/ray/config.yaml` and `gram serve --ray` start."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from gram.server.catalog import bundled_models
from gram.server.ray.deployments import API, Engine
from gram.server.settings import ServerSettings

ROOM = 10_000
"""Requests that a replica of the API may have open: more than the server's own limits admit, which refuse with a 429."""
_LAST_SECONDS = 10
"""Time for a replica to go after the grace period."""


class Arguments(BaseModel):
    """The `args` of the application."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field({}, description="as `gram serve` takes them, such as max_queued: 1000")
    engines: dict[str, list[Path]] = Field(
        default_factory=lambda: {"engine": bundled_models()},
        description="deployments of engines, by name, and the checkpoint folders of each",
    )
    options: dict[str, dict[str, Any]] = Field(
        {}, description="Ray Serve's options of a deployment, by its name, for `gram serve --ray` and for programs"
    )


def build(arguments: Arguments) -> Application:
    """The application: a deployment for each group of models, and the API. Their `deployments` options say how many."""
    groups = {
        name: ServerSettings.model_validate({**arguments.settings, "model": folders})
        for name, folders in arguments.engines.items()
    }
    settings = ServerSettings.model_validate(
        {**arguments.settings, "model": [folder for group in groups.values() for folder in group.model]}
    )
    common = {
        "graceful_shutdown_timeout_s": settings.grace_seconds + _LAST_SECONDS,
        "health_check_period_s": 2,
        "logging_config": {"enable_access_log": False},  # the server has its own
    }
    engines = [
        serve.deployment(Engine).options(name=name, **common, **arguments.options.get(name, {})).bind(group.model_dump(mode="json"))
        for name, group in groups.items()
    ]
    api = serve.deployment(API).options(name="api", max_ongoing_requests=ROOM, **common, **arguments.options.get("api", {}))
    return api.bind(settings.model_dump(mode="json"), *engines)
