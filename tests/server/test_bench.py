import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gram.kernels import timing
from gram.kernels.noise import NoiseKey
from gram.models import layers, network
from gram.models.config import ModelConfig
from gram.models.network import GRAM
from gram.server import bench_against
from gram.server.bench import SIZES, row_operations, sizes_of

ROOT = Path(__file__).parents[2]
QUICK_BENCH = """
from gram.kernels import timing, turns
from gram.server import bench
from gram.server.cli.main import main

turns._TURNS, turns._TURN_SECONDS, timing._ROTATION_BYTES = 1, 0.001, 1 << 20
bench._ENGINE_TURNS, bench._ENGINE_SECONDS = 1, 0.1
main()
"""
"""The command with one short turn of everything: its figures need not be good."""


def test_the_operations_of_a_step_are_those_of_its_matrix_products() -> None:
    config = ModelConfig(
        vocab_size=5, seq_len=9, num_registers=3, dim=8, num_layers=2, mixer_dim=6, mlp_dim=10, guidance_dim=4, low_steps=3
    )
    length, dim = 12, 8
    mixer = 2 * length * dim * 3 * 6
    mlp = 2 * length * dim * 3 * 10
    guidance = 2 * 2 * length * dim * 3 * 4
    transition = (3 + 1) * 2 * (mixer + mlp) + guidance
    readout = 2 * 9 * dim * 5  # the decoder; the heads, a sum for each row, are no matrix product
    assert row_operations(config) == 2 * transition + readout


@pytest.mark.parametrize("size", SIZES)
def test_the_kernels_are_measured_at_the_sizes_at_which_a_step_calls_them(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cpu = SIZES[size], torch.device("cpu")
    called: dict[str, list[object]] = {}

    def spy(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def kernel(*args: object, **options: object) -> object:
            label = "swiglu over positions" if options.get("dim") == 1 else name
            called[label] = shapes(args)
            return original(*args, **options)

        monkeypatch.setattr(module, name, kernel)

    spy(network, "guided_transition")
    spy(network, "readout")
    spy(layers, "add_rms_norm")
    spy(layers, "swiglu")
    model = GRAM(config, posterior=False).requires_grad_(False)
    row = torch.zeros(2, dtype=torch.int64)
    e_x = model.encode(row[:, None].expand(2, config.seq_len))
    state = model.supervision_step(model.initial_state(2), e_x, NoiseKey(row, row, row, torch.ones(2)))
    model.read(state, row, row, torch.ones(2))
    cases = {case.name: shapes(case.draw()) for case in timing.cases(sizes_of(config, 2), cpu, torch.float32)}
    assert cases.pop("stochastic_transition")[0] == (2, config.length, config.dim)  # the guided one takes its place in a step
    # The guidance heads call swiglu, too, before the step ends; the last call over channels is theirs.
    assert called.pop("swiglu") == [(2, config.length, 2 * config.guidance_dim)]
    assert cases.pop("swiglu") == [(2, config.length, 2 * config.mlp_dim)]
    assert called == cases


def shapes(values: Iterable[object]) -> list[object]:
    """The shapes of tensors and of noise keys."""
    return [
        [part.shape for part in value.parts] if isinstance(value, NoiseKey) else tuple(getattr(value, "shape", ()))
        for value in values
    ]


def test_the_command_measures_all_of_it_and_does_without_a_compiler(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        QUICK_BENCH,
        "bench",
        "--slots",
        "8",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "bench.json"),
    ]
    environment = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch.compile does not work here" in done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["matmul_gflops"] > 0
    assert report["copy_gbps"] > 0
    for kernel in report["kernels"]:
        assert kernel["gbps"] > 0
        assert kernel["vs_eager"] > 0
        assert kernel["vs_compile"] is None
        assert kernel["name"] in done.stdout
    assert [(step["model"], step["slots"]) for step in report["step"]] == [("D 128", 8), ("D 512", 8)]
    for step in report["step"]:
        assert step["share_of_matmul"] > 0
        assert step["dtype"] == report["dtype"]
    assert report["against"] is None
    (engine,) = report["engine"]
    assert engine["trajectory_steps_per_s"] > 0


def test_rates_are_compared_round_by_round_and_what_one_build_lacks_is_named() -> None:
    def report(step: float, **more: list[dict[str, object]]) -> dict[str, object]:
        return {"step": [{"model": "D 128", "slots": 8, "dtype": "bfloat16", "trajectory_steps_per_s": step}], **more}

    engine: list[dict[str, object]] = [{"model": "nqueens-8", "slots": 16, "trajectory_steps_per_s": 70.0}]
    rounds = [(report(30.0, engine=engine), report(10.0)), (report(8.0), report(4.0)), (report(40.0), report(10.0))]
    comparison = bench_against.compare("earlier", rounds)
    (ratio,) = comparison.ratios
    assert (ratio.what, ratio.ratio, ratio.least, ratio.greatest) == ("step: D 128, bfloat16, 8 slots", 3.0, 2.0, 4.0)
    assert comparison.missing == ["engine: nqueens-8, 16 slots"]
    assert "3.00 | 2.00 to 4.00" in " ".join(comparison.text().split())
    assert "only one of the two builds measures it: engine: nqueens-8, 16 slots." in comparison.text()


def test_both_builds_run_with_the_flags_that_were_given_and_take_turns_at_being_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builds are scripts that write down their turn and a report, as gram bench --json does."""
    monkeypatch.setenv("PYTHONPATH", "ours")
    turns_taken = tmp_path / "turns"
    for name, rate in (("ours", 6), ("theirs", 2)):
        python = tmp_path / name / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        line = {"model": "m", "slots": 1, "dtype": "float32", "trajectory_steps_per_s": rate}
        said = json.dumps({"step": [line]})
        python.write_text(
            f"#!/bin/sh\necho {name} $PYTHONPATH $4 $5 >> {turns_taken}\nfor file; do :; done\necho '{said}' > \"$file\"\n"
        )
        python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "ours/.venv/bin/python"))
    report, comparison = bench_against.measure_in_turns(tmp_path / "theirs", ["--slots", "8"], rounds=2)
    assert turns_taken.read_text().splitlines() == [
        "ours ours --slots 8",
        "theirs --slots 8",
        "theirs --slots 8",
        "ours ours --slots 8",
    ]
    assert report["step"][0]["trajectory_steps_per_s"] == 6
    assert comparison.ratios[0].ratio == 3


@pytest.mark.parametrize(
    ("script", "message"),
    [(None, "has no .venv/bin/python"), ("#!/bin/sh\necho 'no such command: bench' >&2\nexit 2\n", "no such command: bench")],
)
def test_a_build_that_cannot_be_measured_is_refused_with_the_reason(script: str | None, message: str, tmp_path: Path) -> None:
    if script:
        python = tmp_path / "bin/python"
        python.parent.mkdir()
        python.write_text(script)
        python.chmod(0o755)
    with pytest.raises(bench_against.AgainstError, match=message):
        bench_against.report_of(bench_against.python_of(tmp_path), tmp_path, [])
