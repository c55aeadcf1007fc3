"""The alert rules, and the dashboard's queries against a real Prometheus that scrapes a real server."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.servers import PATIENCE, free_port, serving, wait_for
from gram.server.metrics import Metrics
from tests.support import FIXED_SIZE

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "gram.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="needs Prometheus: apt-get install prometheus"
)


def promtool(*arguments: str) -> None:
    result = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def queries(panel: dict[str, Any]) -> list[str]:
    """A panel's, as Grafana sends them for half an hour of all models."""
    values = {"$__rate_interval": "1m", "$__range": "30m", "$model": ".*"}
    found = []
    for target in panel["targets"]:
        expression: str = target["expr"]
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        found.append(expression)
    return found


def series() -> set[str]:
    """The names of all that the server exposes."""
    names = set()
    for metric in Metrics({}).described:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names


@needs_prometheus
def test_the_configuration_and_the_rules_are_prometheus_own() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


@needs_prometheus
def test_each_alert_fires_when_it_must_and_not_when_it_must_not() -> None:
    promtool("test", "rules", "alerts_test.yml")
    tested = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    expected = [case["alertname"] for group in tested for case in group["alert_rule_test"] if case["exp_alerts"]]
    assert sorted(expected) == sorted(rule["alert"] for rule in RULES)


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    expressions = [rule["expr"] for rule in RULES] + [query for panel in PANELS.values() for query in queries(panel)]
    asked = {name for expression in expressions for name in re.findall(r"\bgram_\w+", expression)}
    assert asked <= series()
    assert len(asked) > 20


def test_grafana_finds_its_dashboard_and_its_datasource() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "gram.yml").read_text())["providers"]
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    used = {target["datasource"]["uid"] for panel in PANELS.values() for target in panel["targets"]}
    assert used == {source["uid"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[str]:
    """A Prometheus with the configuration of deploy/, but this target and a scrape each second; yields its address."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")
    process = subprocess.Popen(["prometheus", *flags, "--log.level=error"])
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def query(prometheus: str, expression: str) -> list[float]:
    """The values of a query's series now, numbers all; none while Prometheus is not up."""
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=PATIENCE)
    except httpx.TransportError:
        return []
    if answer.status_code == 503:  # it starts
        return []
    assert answer.status_code == 200, answer.text
    values = [float(series["value"][1]) for series in answer.json()["data"]["result"]]
    return [value for value in values if value == value]


@needs_prometheus
def test_prometheus_scrapes_the_server_and_every_panel_has_data(checkpoint: Path, tmp_path: Path) -> None:
    with (
        serving("--model", str(checkpoint), *FIXED_SIZE) as server,
        scraping(server.url.removeprefix("http://"), tmp_path) as prometheus,
        httpx.Client(timeout=PATIENCE) as client,
    ):
        body = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 20, "temperature": 2}
        unanswered = {(title, expression) for title, panel in PANELS.items() for expression in queries(panel)}
        seeds = itertools.count()

        def answered() -> bool:
            client.post(f"{server.url}/v1/solve", json=body | {"seed": next(seeds)}).raise_for_status()
            client.post(f"{server.url}/v1/solve", json=body | {"puzzle": "g7 h8"})
            unanswered.difference_update([each for each in unanswered if query(prometheus, each[1])])
            return {title for title, _ in unanswered} <= {"LPRM's calibration"}

        wait_for(answered, "each panel has data")
        # No answer may come with a score of some range; but some come with one of another.
        ranges = set(queries(PANELS["LPRM's calibration"]))
        assert {expression for _, expression in unanswered} < ranges
        wait_for(lambda: query(prometheus, "up") == [1], "the last scrape was answered within its second")

        def alerts() -> list[dict[str, Any]]:
            rules: list[dict[str, Any]] = client.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
            return rules

        wait_for(lambda: all(alert["health"] != "unknown" for alert in alerts()), "each rule has been evaluated")
        assert {alert["name"]: alert["health"] for alert in alerts()} == {rule["alert"]: "ok" for rule in RULES}
        assert not [alert["name"] for alert in alerts() if alert["state"] == "firing"]
