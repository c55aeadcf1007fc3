import json
import os
import subprocess
import sys
from pathlib import Path

from gram.models.config import ModelConfig
from gram.server.bench import row_operations

ROOT = Path(__file__).parents[2]


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


def test_the_command_measures_all_of_it_and_does_without_a_compiler(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gram",
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
    (engine,) = report["engine"]
    assert engine["trajectory_steps_per_s"] > 0
