"""What the metrics say of a real server, and what is said of them."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.servers import PATIENCE, RunningServer, serving
from gram.models.tasks import TASKS
from gram.server.engine.engine import Engine
from gram.server.engine.messages import Submit
from gram.server.metrics import Metrics
from gram.server.settings import EngineSettings
from tests.support import FIXED_SIZE

MODELS = {"nqueens-8": "nqueens-8", "sudoku-4x4": "sudoku-4x4"}
"""Those served here, and their tasks."""
ON_USE = {"gram_http_requests_total", "gram_http_request_seconds", "gram_key_requests_total"}
"""Metrics with labels that nobody knows before there is something to count."""
DOCUMENT = Path(__file__).parents[2] / "deploy" / "METRICS.md"
REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 12, "seed": 1}


class Scrape:
    """What GET /metrics said."""

    def __init__(self, server: RunningServer) -> None:
        text = server.get("/metrics").text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name and these labels, of which there must be some."""
        found = [sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()]
        assert found, f"no sample of {name} {labels}"
        return sum(found)


@pytest.fixture(scope="module")
def started(checkpoint: Path) -> Iterator[tuple[RunningServer, Scrape]]:
    """A server, and what it said before its first request."""
    with serving(*(f"--model={checkpoint.with_name(name)}" for name in MODELS), *FIXED_SIZE) as server:
        yield server, Scrape(server)


def test_the_document_is_made_from_the_metrics() -> None:
    assert DOCUMENT.read_text() == Metrics({}).document()


def test_every_metric_has_samples_from_the_start_and_is_documented(started: tuple[RunningServer, Scrape]) -> None:
    _, scrape = started
    documented = dict(re.findall(r"^\| `(\w+?)(?:_total)?` \| (\w+) ", DOCUMENT.read_text(), re.MULTILINE))
    assert {name: family.type for name, family in scrape.families.items()} == documented
    for name, family in scrape.families.items():
        assert family.samples or {name, f"{name}_total"} & ON_USE, f"{name} has no sample"
    for model, task in MODELS.items():
        assert scrape("gram_live_slots", model=model) == scrape("gram_queue_depth", model=model) == 0
        assert scrape("gram_free_slots", model=model) > 0
        for valid in ("true", "false"):
            assert scrape("gram_trajectories_total", model=model, task=task, valid=valid) == 0
            assert scrape("gram_lprm_score_count", model=model, valid=valid) == 0
        assert scrape("gram_model_ready", model=model) == 1
    assert scrape("gram_ready") == 1
    assert scrape("gram_errors_total") == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool: apt-get install prometheus")
def test_names_and_types_are_as_prometheus_wants_them(started: tuple[RunningServer, Scrape]) -> None:
    text = started[0].get("/metrics").text
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_answer_is_counted(started: tuple[RunningServer, Scrape]) -> None:
    server, _ = started
    before = Scrape(server)
    answer = server.post("/v1/solve", json=REQUEST).json()
    after = Scrape(server)

    def grown(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    votes = {valid: sum(c["votes"] for c in answer["candidates"] if c["valid"] == valid) for valid in (True, False)}
    for valid, count in votes.items():
        labels = {"model": "nqueens-8", "valid": str(valid).lower()}
        assert grown("gram_trajectories_total", **labels, task="nqueens-8") == grown("gram_lprm_score_count", **labels) == count
    assert votes[True] > 0
    best = max(candidate["score"] for candidate in answer["candidates"])
    assert 0 < grown("gram_lprm_score_sum", model="nqueens-8") <= 12 * best
    steps = answer["steps_run"]
    assert grown("gram_trajectory_steps_total", model="nqueens-8") == grown("gram_trajectory_depth_steps_sum") == steps
    made = grown("gram_step_seconds_count", model="nqueens-8")
    slots = after("gram_free_slots", model="nqueens-8") + after("gram_live_slots", model="nqueens-8")
    assert grown("gram_batch_occupancy_ratio_count", model="nqueens-8") == made > 0
    assert grown("gram_batch_occupancy_ratio_sum", model="nqueens-8") == pytest.approx(steps / slots)
    for name in ("gram_queue_seconds_count", "gram_time_to_first_candidate_seconds_count"):
        assert grown(name, model="nqueens-8") == 1
    assert grown("gram_trajectories_total", model="sudoku-4x4") == 0


def test_errors_are_counted_by_cause_and_probes_are_not(started: tuple[RunningServer, Scrape]) -> None:
    server, _ = started
    before = Scrape(server)
    assert server.post("/v1/solve", json=REQUEST | {"puzzle": "g7 h8"}).json()["cause"] == "invalid"
    assert server.get("/nowhere").json()["cause"] == "not_found"
    server.get("/health/ready")
    after = Scrape(server)
    for cause in ("invalid", "not_found"):
        assert after("gram_errors_total", cause=cause) == before("gram_errors_total", cause=cause) + 1
    assert after("gram_errors_total") == before("gram_errors_total") + 2
    assert after("gram_http_requests_total", path="other", status="404") > 0


def test_a_client_that_leaves_is_counted_and_the_gauges_fall_by_themselves(started: tuple[RunningServer, Scrape]) -> None:
    server, _ = started
    before = Scrape(server)("gram_requests_cancelled_total", model="nqueens-8")
    body = REQUEST | {"num_trajectories": 100_000, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/solve", json=body, timeout=PATIENCE) as response:
        lines = response.iter_lines()  # kept: without it the stream is closed
        next(lines)
        assert Scrape(server)("gram_queue_depth", model="nqueens-8") > 0
    server.wait_until("gram_requests_cancelled_total", before + 1)
    server.wait_until("gram_queue_depth", 0)
    server.wait_until("gram_live_slots", 0)


def test_the_memory_is_that_of_the_engine(started: tuple[RunningServer, Scrape]) -> None:
    server, _ = started
    server.wait_past("gram_device_memory_bytes", 0)  # it is told every second
    assert Scrape(server)("gram_device_memory_bytes") == pytest.approx(server.engine().memory_info().rss, rel=0.2)


def test_steps_of_several_models_share_out_the_time_and_count_none_of_it_twice(checkpoint: Path) -> None:
    engine = Engine(EngineSettings(model=[checkpoint.with_name(name) for name in MODELS], device="cpu"))
    for number, (model, task) in enumerate(MODELS.items()):
        engine.handle(Submit(number, model, TASKS[task].held_out[0].astype("uint8").tobytes(), 32, 16, 1, 1.0))
    begin = time.monotonic()
    reports = engine.step()
    seconds = time.monotonic() - begin
    assert {report.model for report in reports} == set(MODELS)
    assert all(report.seconds > 0 for report in reports)
    assert sum(report.seconds for report in reports) <= seconds
