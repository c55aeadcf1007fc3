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
folder, updates = Path(sys.argv[1]), [int(n) for n in sys.argv[2:]]
for until in updates:
    trainer = Trainer.create(TrainingConfig.model_validate_json((folder / "recipe.json").read_text()))
    if (folder / "training.safetensors").exists():
        trainer.resume(folder)
    while trainer.update < until:
        trainer._step(TASKS[trainer.config.task], *trainer._stage())
    trainer.save(folder)
    torch.distributed.barrier()  # the first process has written
    weights = trainer.model.decoder.weight.detach()
    first = weights.clone()
    torch.distributed.broadcast(first, 0)
    assert torch.equal(weights, first), "all processes hold the same weights"
"""


def torchrun(folder: Path, recipe: TrainingConfig, *updates: int) -> dict[str, torch.Tensor]:
    """Train in two processes to each of these updates, a fresh trainer resuming each time; the last resume file."""
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    (folder / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, str(folder / "run.py"), str(folder), *map(str, updates)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr
    return load_file(folder / RESUME_FILE)


@pytest.fixture(scope="module")
def halves(recipe: Recipe) -> TrainingConfig:
    return recipe(batch_size=8, prior_share=0.5)


def test_two_processes_share_the_batch_and_a_resumed_run_ends_alike(halves: TrainingConfig, tmp_path: Path) -> None:
    whole = torchrun(tmp_path / "whole", halves, 6)
    resumed = torchrun(tmp_path / "resumed", halves, 3, 6)
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
