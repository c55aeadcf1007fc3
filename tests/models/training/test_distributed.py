"""A run over two processes, as torchrun starts them, on the CPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.servers import PATIENCE
from gram.models.training.distributed import Peers
from gram.models.training.recipe import ConfigError, TrainingConfig
from gram.models.training.trainer import RESUME_FILE, Trainer

Recipe = Callable[..., TrainingConfig]
ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
import torch
from gram.models.tasks import TASKS
from gram.models.training.recipe import TrainingConfig
from gram.models.training.trainer import Trainer
torch.set_num_threads(1)
root = Path(sys.argv[1])
for name, until in (("whole", 6), ("resumed", 3), ("resumed", 6)):
    trainer = Trainer.create(TrainingConfig.model_validate_json((root / "recipe.json").read_text()))
    if (root / name).exists():
        trainer.resume(root / name)
    while trainer.update < until:
        trainer._step(TASKS[trainer.config.task], *trainer._stage())
    torch.distributed.barrier()  # all have looked for the folder
    trainer.save(root / name)
    torch.distributed.barrier()  # the first process has written
    weights = trainer.model.decoder.weight.detach()
    first = weights.clone()
    torch.distributed.broadcast(first, 0)
    assert torch.equal(weights, first), "all processes hold the same weights"
"""


def torchrun(folder: Path, recipe: TrainingConfig) -> None:
    """Train in two processes for 6 updates, once as a whole, and once in two halves, a fresh trainer resuming the second."""
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    (folder / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(folder / "run.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def halves(recipe: Recipe) -> TrainingConfig:
    return recipe(batch_size=8, prior_share=0.5)


def test_two_processes_share_the_batch_and_a_resumed_run_ends_alike(halves: TrainingConfig, tmp_path: Path) -> None:
    torchrun(tmp_path, halves)
    whole, resumed = (load_file(tmp_path / name / RESUME_FILE) for name in ("whole", "resumed"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert len(whole["carry.puzzle"]) == 8, "the file holds the rows of both"
    assert not torch.equal(whole["carry.puzzle"][:4], whole["carry.puzzle"][4:]), "each draws its own pairs"
    alone = Trainer.create(halves)
    with pytest.raises(ConfigError, match="written by 2 processes"):
        alone.resume(tmp_path / "whole")


def test_one_process_alone_exchanges_nothing() -> None:
    peers, tensor = Peers(), torch.arange(4.0)
    peers.average([tensor])
    assert peers.gather(tensor) is tensor
    assert torch.equal(peers.part(tensor), torch.arange(4.0))
