"""The configurations for Ray Serve, by its own schema and against the code, and KubeRay's manifest."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from gram.server.settings import ServerSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE = yaml.safe_load((DEPLOY / "kubernetes" / "ray" / "rayservice.yaml").read_text())
CONFIGS = {path.name: path.read_text() for path in (DEPLOY / "ray").glob("*.yaml")}
CONFIGS |= {"rayservice.yaml": SERVICE["spec"]["serveConfigV2"]}
GRACE_SECONDS: int = ServerSettings.model_fields["grace_seconds"].default


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_ray_serves_and_the_applications(name: str) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    from ray.serve.schema import ServeDeploySchema

    from gram.server.ray.application import Arguments, build

    config = yaml.safe_load(CONFIGS[name])
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    assert application["import_path"] == "gram.server.ray.application:build"
    arguments = Arguments(**application["args"])
    build(arguments)
    assert {each["name"] for each in application["deployments"]} == {"api", *arguments.engines}
    for deployment in application["deployments"]:
        assert deployment.get("graceful_shutdown_timeout_s", GRACE_SECONDS + 10) > GRACE_SECONDS


def test_replicas_follow_what_is_busy_and_what_waits() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    from gram.server.ray.scaling import BUSY, PATIENCE_SECONDS, QUEUED_SECONDS, by_work

    def replicas(busy: list[float], queued: list[float]) -> int:
        told: dict[str, dict[Any, float]] = {BUSY: dict(enumerate(busy)), QUEUED_SECONDS: dict(enumerate(queued))}
        number, _ = by_work(SimpleNamespace(aggregated_metrics=told))
        return number

    assert replicas([], []) == replicas([0, 0], [0, 0]) == 0, "Ray Serve keeps the floor"
    assert replicas([1, 1], [0, 0]) == 2
    assert replicas([1, 1], [PATIENCE_SECONDS, PATIENCE_SECONDS]) == 4
    assert replicas([1], [10 * PATIENCE_SECONDS]) == 11, "one request for very many trajectories is much work"


def test_the_manifest_is_a_rayservice_whose_pods_are_kubernetes_own() -> None:
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("ray.io/v1", "RayService")
    cluster = SERVICE["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"].startswith("2.60.")
    (workers,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], workers):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gram"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        assert pod["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS + 10
        (container,) = pod["spec"]["containers"]
        assert [variable["name"] for variable in container["env"]] == ["GRAM_JOBS"]
        (port,) = container["ports"]
        assert port["containerPort"] == yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["http_options"]["port"]
        (engine, _) = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["applications"][0]["deployments"]
        assert int(container["resources"]["limits"]["cpu"]) >= engine["ray_actor_options"]["num_cpus"]
