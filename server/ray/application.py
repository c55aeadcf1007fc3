"""The application that `serve run deploy/ray/config.yaml` and `gram serve --ray` start."""

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
        description="deployments of engines, by name, and the models of each: checkpoint folders, or names of bundled ones",
    )
    options: dict[str, dict[str, Any]] = Field(
        {}, description="Ray Serve's options of a deployment, by its name, for `gram serve --ray` and for programs"
    )


def build(arguments: Arguments) -> Application:
    """The application: a deployment for each group of models, and the API. Their `deployments` options say how many."""
    if not ray.__version__.startswith(f"{RAY}."):
        raise RuntimeError(
            f"Ray {ray.__version__} is installed, and this server needs {RAY}: pip install 'ray[serve]=={RAY}.*'"
        )
    groups = {
        group: ServerSettings.model_validate({**arguments.settings, "model": [_folder(name) for name in names]})
        for group, names in arguments.engines.items()
    }
    settings = ServerSettings.model_validate(
        {**arguments.settings, "model": [folder for group in groups.values() for folder in group.model]}
    )
    common = {
        "graceful_shutdown_timeout_s": settings.grace_seconds + _LAST_SECONDS,
        "health_check_period_s": 2,
        "logging_config": {"enable_access_log": False},  # the server has its own
        "max_constructor_retry_count": 3,
    }
    engines = [
        serve.deployment(Engine)
        .options(name=name, **(common | arguments.options.get(name, {})))
        .bind(group.model_dump(mode="json"))
        for name, group in groups.items()
    ]
    light = {"max_ongoing_requests": ROOM, "ray_actor_options": {"num_cpus": 0}}
    api = serve.deployment(API).options(name="api", **(common | light | arguments.options.get("api", {})))
    return api.bind(settings.model_dump(mode="json"), *engines)


def _folder(model: Path) -> Path:
    """The folder of a model: itself, or that of the bundled one with this name."""
    return model if model.exists() else next((folder for folder in bundled_models() if folder.name == str(model)), model)
