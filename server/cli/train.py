"""`gram train`."""

import os
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from gram.server.cli.errors import CommandError
from gram.server.settings import Device


class Train(BaseModel):
    """Train a checkpoint by a recipe. A run that was cut off resumes where it last saved."""

    recipe: CliPositionalArg[Path | None] = Field(
        None, description="a TOML file, such as models/zoo/coloring-8/train.toml (default, with --data: a TRM)"
    )
    data: Path | None = Field(
        None, description="folder of a data set to train on, with dataset.json in it or in train/: see docs/own-data.md"
    )
    out: Path | None = Field(None, description="folder of the checkpoint; if left out, that of the recipe")
    start: Path | None = Field(None, description="folder of a checkpoint whose weights a new run begins with")
    device: Device = Field("auto", description="auto takes a CUDA GPU if there is one")
    threads: int | None = Field(None, ge=1, description="CPU threads (default: all cores)")
    compile: bool = Field(False, description="use torch.compile: up to 1.6 times as fast on a CPU; needs a C++ compiler")

    def cli_cmd(self) -> None:
        import torch

        try:
            from gram.models.training.recipe import DATA_RECIPE, ConfigError, load_training_config
            from gram.models.training.trainer import train
        except ModuleNotFoundError as error:
            raise CommandError(f"{error}; training needs more packages: pip install -e '.[train]'") from error

        from gram.server.engine.device import choose_device

        if self.threads:
            torch.set_num_threads(self.threads)
        out = self.out or (self.recipe and self.recipe.parent)
        if (self.recipe or self.data) is None:
            raise CommandError("name a recipe, or a data set with --data")
        if out is None:
            raise CommandError("name the folder of the checkpoint with --out")
        device = choose_device(self.device)
        if device.type == "cuda":  # torchrun gives each process a device of its own
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        try:
            config = load_training_config(self.recipe or DATA_RECIPE, self.data)
            written = train(config, out, device=device, start=self.start, compile=self.compile)
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if written:
            measured = f" --data {self.data}" if self.data else ""
            print(f"wrote {out}; measure it with: gram eval {out}{measured}")
