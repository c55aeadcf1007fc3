"""`gram bench`."""

from pathlib import Path

from pydantic import Field

from gram.server.settings import EngineSettings


class Bench(EngineSettings):
    """Measure what this machine can do, and how near to it the kernels, the supervision step and the engine come."""

    json_file: Path | None = Field(None, alias="json", description="a file to write the same figures to")

    def cli_cmd(self) -> None:
        from gram.server.bench import measure

        report = measure(self)
        print(report.text())
        if self.json_file:
            self.json_file.write_text(report.model_dump_json(indent=2) + "\n")
