"""`gram bench`."""

from pathlib import Path

from pydantic import Field

from gram.server.settings import EngineSettings


class Bench(EngineSettings):
    """Measure this machine's ceilings, and how near the kernels, the supervision step and the engine come to them."""

    json_file: Path | None = Field(None, alias="json", description="also write the figures to this file, as JSON")

    def cli_cmd(self) -> None:
        from gram.server.bench import measure

        report = measure(self)
        print(report.text())
        if self.json_file:
            self.json_file.write_text(report.model_dump_json(indent=2) + "\n")
