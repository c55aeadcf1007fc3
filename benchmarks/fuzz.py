"""Fuzz the server with schemathesis: no request made up from the OpenAPI document may be answered against it."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.servers import serving
from gram.models.checkpoint import save_checkpoint
from gram.models.config import CheckpointConfig, ModelConfig
from gram.models.network import GRAM
from gram.models.tasks import TASKS
from gram.server.api.keys import Key, digest, new_key

_CONFIG = Path(__file__).with_name("schemathesis.toml")
_LIMITS = ("--max-trajectories", "20", "--max-steps", "16")
"""Small limits, which make the cases quick. The OpenAPI document states them."""


def untrained(folder: Path) -> list[Path]:
    """Write a tiny random model for each task. Its steps are quick, and its answers are wrong in every way."""
    folders = []
    for name, task in TASKS.items():
        sizes = {"dim": 8, "num_layers": 1, "mixer_dim": 8, "mlp_dim": 8, "guidance_dim": 8, "num_registers": 1}
        config = ModelConfig(vocab_size=task.vocab_size, seq_len=task.seq_len, **sizes)
        checkpoint = CheckpointConfig(task=name, generates=task.blank is not None, model=config)
        save_checkpoint(folder / name, checkpoint, GRAM(config))
        folders.append(folder / name)
    return folders


def main() -> None:
    """Run all checks of schemathesis with an admin's key. It prints each failure with a command that repeats it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="most cases for each operation; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cases; default: %(default)s")
    options = parser.parse_args()
    # It is also found if the virtual environment of this Python is not activated.
    schemathesis = shutil.which(
        "schemathesis", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    )
    if schemathesis is None:
        sys.exit("schemathesis is not installed: pip install -e '.[fuzz]'")
    key = new_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys_file = folder / "keys.toml"
        keys_file.write_text(Key(sha256=digest(key), admin=True).toml("fuzz"))
        models = [flag for model in untrained(folder) for flag in ("--model", str(model))]
        models += ["--models-root", str(folder)]
        with serving(*models, "--keys-file", str(keys_file), *_LIMITS, log=folder / "log") as server:
            api = psutil.Process(server.process.pid)
            before = api.memory_info().rss
            command = [schemathesis, "--config-file", str(_CONFIG), "run", f"{server.url}/openapi.json", "--no-color"]
            command += ["--header", f"Authorization: Bearer {key}", "--checks", "all", "--continue-on-failure"]
            command += ["--max-examples", str(options.cases), "--seed", str(options.seed), "--request-timeout", "60"]
            command += ["--max-response-time", "60"]
            code = subprocess.run(command, cwd=folder).returncode
            print(f"API: {before / 2**20:.1f} MiB before, {api.memory_info().rss / 2**20:.1f} MiB after")
            for gauge in ("gram_engine_restarts_total", "gram_active_requests", "gram_live_slots"):
                print(f"{gauge}: {server.gauge(gauge):g}")
    sys.exit(code)


if __name__ == "__main__":
    main()
