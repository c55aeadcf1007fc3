"""The Dockerfile, the compose file and the Kubernetes manifests, by the validators of each and against the code.

What builds the image where there is no Docker is deploy/check-dockerfile.sh.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.servers import RunningServer, free_port, wait_for
from gram.server.metrics import Metrics
from gram.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = {
    document["kind"]: document
    for path in KUBERNETES.glob("*.yaml")
    if "kind" in (document := yaml.safe_load(path.read_text())) and document["kind"] != "Kustomization"
}
FOREIGN = {"InferenceService"}
"""Kinds that Kubernetes knows only where what defines them is installed, here KServe."""
GRACE_SECONDS: int = ServerSettings.model_fields["grace_seconds"].default


def tool(name: str) -> str:
    """A program of the test extra; skips where it does not exist for this machine."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not path:
        pytest.skip(f"needs {name}")
    return path


def instruction(name: str) -> list[str]:
    """The JSON list of the Dockerfile's last such instruction."""
    words: list[str] = json.loads(
        re.findall(rf"^{name} .*?(\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)[-1].replace("\\\n", "")
    )
    return words


def test_the_dockerfile_is_as_hadolint_wants_it() -> None:
    result = subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_starts_the_server_itself_as_a_user_that_is_not_root() -> None:
    assert instruction("ENTRYPOINT") + instruction("CMD") == ["gram", "serve"]
    assert re.findall("^USER (.*)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_the_health_check_tells_a_server_that_is_ready_from_none(server: RunningServer) -> None:
    python, *command = instruction("HEALTHCHECK")
    assert python == "python"

    def well(url: str) -> bool:
        asked = [word.replace("http://127.0.0.1:8000", url) for word in command]
        assert asked != command
        return subprocess.run([sys.executable, *asked], capture_output=True).returncode == 0

    wait_for(lambda: well(server.url), "it is well")  # an answer in its few seconds, on whatever machine
    assert not well(f"http://127.0.0.1:{free_port()}")


def test_the_lock_file_pins_what_the_project_asks_for_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(line)
        for line in project["dependencies"]
        + project["optional-dependencies"]["otel"]
        + project["optional-dependencies"]["jobs"]
    ]
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    pins = {}
    for entry in entries:
        if not entry.startswith("#"):
            pin = Requirement(entry.split(" ")[0])
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
            assert "--hash=sha256:" in entry
    assert [name for name in pins if re.match("torch|nvidia|triton", name)] == [], "torch is the build argument's"
    for requirement in wanted:
        if requirement.name != "torch":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(("profile", "server"), [(None, "gram"), ("cpu", "gram"), ("gpu", "gram-gpu")])
def test_compose_runs_one_server_beside_prometheus_and_grafana(profile: str | None, server: str) -> None:
    command = [tool("docker-compose"), *(["--profile", profile] if profile else []), "config", "--format", "json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    services: dict[str, Any] = json.loads(result.stdout)["services"]
    assert set(services) == {server, "prometheus", "grafana"}
    assert "gram" in services[server]["networks"]["default"]["aliases"], "what Prometheus scrapes"
    assert services[server]["build"]["args"].get("DEVICE", "cpu") == (profile or "cpu")
    assert int(services[server]["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
    (jobs,) = services[server]["volumes"]
    assert Path(services[server]["environment"]["GRAM_JOBS"]).parent == Path(jobs["target"])
    assert f"install -d -o 10001 -g 10001 {jobs['target']}" in DOCKERFILE, "a new volume takes its owner from the image"
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_the_manifests_are_kubernetes_own() -> None:
    assert MANIFESTS.keys() - FOREIGN == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(f"{kind.lower()}.yaml" for kind in MANIFESTS.keys() - FOREIGN)
    for kind in MANIFESTS.keys() - FOREIGN:
        kubernetes_validate.validate(MANIFESTS[kind], "1.33", strict=True)


def test_kserve_runs_the_pod_of_the_deployment() -> None:
    """A predictor is a pod with a few fields of KServe's own."""
    service = MANIFESTS["InferenceService"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = {**service["spec"]["predictor"]}
    assert predictor.pop("minReplicas") == MANIFESTS["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": predictor}
    kubernetes_validate.validate(pod, "1.33", strict=True)
    plain = {**MANIFESTS["Deployment"]["spec"]["template"]["spec"]}
    (container,) = plain["containers"]
    environment = [{"name": "PROTOCOL", "value": "v2"}, *container["env"]]
    plain["containers"] = [container | {"name": "kserve-container", "env": environment}]
    assert predictor == plain


def test_the_manifests_fit_each_other_and_the_server() -> None:
    deployment, service, budget, scaler = (
        MANIFESTS[kind]["spec"] for kind in ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler")
    )
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == budget["selector"]["matchLabels"] == service["selector"] == labels
    assert scaler["scaleTargetRef"]["name"] == MANIFESTS["Deployment"]["metadata"]["name"]
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in [described.name for described in Metrics({}).described]
    assert name in (KUBERNETES / "prometheus-adapter.yaml").read_text()
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + GRACE_SECONDS + 5
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == "10001:10001"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [variable["name"] for variable in container["env"]] == ["GRAM_JOBS"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["optional"], "the server also runs without jobs"
    (port,) = container["ports"]
    assert port["containerPort"] == ServerSettings.model_fields["port"].default
    assert {port["name"]} == {
        container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
