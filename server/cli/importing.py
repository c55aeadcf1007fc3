"""`gram import`."""

from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from gram.models.config import Size
from gram.server.cli.errors import CommandError
from gram.server.cli.hub import Address, fetch


class Import(BaseModel):
    """Import a checkpoint of TRM's or HRM's public code, so that it can be served.

    What the all_config.yaml beside it says need not be given. Weights stay as they are, in float32. What can't be served is
    refused, and nothing is then written.
    """

    source: CliPositionalArg[Path] = Field(
        description="step_N, *.pt, *.pth or *.safetensors, a folder with one of them, or hf:OWNER/NAME@REVISION"
    )
    out: Path = Field(description="folder of the checkpoint to write; it must not exist")
    task: str | None = Field(
        None,
        description="its task (default: the Sudoku or maze of its sizes, or else one without code that is named as its data)",
    )
    h_cycles: Size | None = Field(None, description="H_cycles of its configuration")
    l_cycles: Size | None = Field(None, description="L_cycles of its configuration")
    num_heads: Size | None = Field(None, description="attention heads")
    seq_len: Size | None = Field(None, description="cells of a puzzle")
    prefix: Size | None = Field(None, description="positions before the cells: a TRM's puzzle_emb_len")

    def cli_cmd(self) -> None:
        from gram.models.importing import import_checkpoint
        from gram.models.importing.source import Arch

        given = self.model_dump(include={"h_cycles", "l_cycles", "num_heads", "seq_len"}, exclude_none=True)
        if self.prefix is not None:
            given["puzzle_emb_len"] = self.prefix
        path, source_name = self.source, None
        if address := Address.read(path):
            fetched = fetch(address)
            if fetched.is_ours:
                raise CommandError(f"{address} needs no import; serve it with: gram serve --model {address}")
            path, source_name = fetched.weights, fetched.source
        imported = import_checkpoint(path, self.out, task=self.task, given=Arch.model_validate(given), source_name=source_name)
        print(*imported.report(), sep="\n")
        print(f"wrote {self.out}; serve it with: gram serve --model {self.out}")
