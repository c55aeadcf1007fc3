"""`gram trace`."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from gram.models.config import Size
from gram.models.tasks import PuzzleError, Task, Tokens
from gram.server.catalog import read_models
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import local
from gram.server.inputs.files import PuzzleFile
from gram.server.settings import Device


class Trace(BaseModel):
    """Write what a checkpoint computes after each supervision step, for comparing it with other code.

    The n puzzles are stepped without halting, symmetries or added noise; where a checkpoint is stochastic, puzzle i has the
    noise of trajectory 0 of seed + i, from i = 0. The file has, in float32: logits [steps, n, cells, symbols]; halt and value
    [steps, n], the logits of the halt head and of the reward model; with --states h and l [steps, n, positions, channels];
    and inputs [n, cells] as int64. Symbols are the model's: without padding, where a data set has it.
    """

    checkpoint: CliPositionalArg[Path] = Field(description="folder of the checkpoint, or hf:OWNER/NAME@REVISION")
    inputs: Path = Field(description="the puzzles: an .npy file, a data set folder, or whatever else gram solve --input reads")
    steps: Size = Field(description="supervision steps")
    out: Path = Field(description="the file to write, .safetensors")
    states: bool = Field(False, description="write the latent states, too")
    seed: int = Field(0, ge=0, lt=2**62, description="seed of the first puzzle")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="what the network computes in")
    device: Device = Field("auto", description="auto takes a CUDA GPU if there is one")

    def cli_cmd(self) -> None:
        (model,) = read_models(local([self.checkpoint])).values()
        if not self.out.absolute().parent.is_dir():
            raise CommandError(f"{self.out}: there is no folder {self.out.parent}")
        puzzles = _read(PuzzleFile(self.inputs, [model.task]), model.task, self.inputs)

        import torch
        from safetensors.torch import save_file

        from gram.models.checkpoint import load_checkpoint
        from gram.models.serving import prepare
        from gram.models.trace import ROWS, trace
        from gram.server.engine.device import choose_device

        device = choose_device(self.device)
        network = load_checkpoint(model.folder, device, getattr(torch, self.dtype))
        prepare(network, ROWS)
        inputs = torch.from_numpy(puzzles)
        traced = trace(network, inputs.to(device), self.steps, seed=self.seed, states=self.states)
        try:
            save_file({"inputs": inputs, **traced}, self.out)
        except OSError as error:
            raise CommandError(f"{self.out}: {error.strerror or error}") from error
        sizes = ", ".join(f"{name} {[*tensor.shape]}" for name, tensor in traced.items())
        print(f"wrote {self.out}: {sizes}")


def _read(file: PuzzleFile, task: Task, path: Path) -> Tokens:
    """All puzzles [n, N]."""
    if file.data:
        return file.data.puzzles(slice(0, len(file)))
    puzzles = []
    for line in file:
        try:
            puzzles.append(task.read(line.puzzle))
        except PuzzleError as error:
            raise CommandError(f"{path}, line {line.number}: {error}") from error
    if not puzzles:
        raise CommandError(f"{path} has no puzzle")
    return np.stack(puzzles)
