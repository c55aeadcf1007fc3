"""`gram bench`."""

from pathlib import Path

from pydantic import Field

from gram.server.cli.errors import CommandError
from gram.server.settings import EngineSettings


class Bench(EngineSettings):
    """Measure this machine's ceilings, and how near the kernels, the supervision step and the engine come to them."""

    json_file: Path | None = Field(None, alias="json", description="also write the figures to this file, as JSON")
    against: Path | None = Field(
        None,
        description="folder of another checkout with its environment in .venv, or an environment, to compare with: both builds "
        "run gram bench three times, in turns",
    )

    def cli_cmd(self) -> None:
        from gram.server.bench import BenchReport, measure
        from gram.server.bench_against import AgainstError, measure_in_turns

        if self.against:
            try:
                figures, comparison = measure_in_turns(self.against, self._flags())
            except AgainstError as error:
                raise CommandError(str(error)) from None
            report = BenchReport.model_validate(figures | {"against": comparison})
        else:
            report = measure(self)
        print(report.text())
        if self.json_file:
            self.json_file.write_text(report.model_dump_json(indent=2) + "\n")

    def _flags(self) -> list[str]:
        """The engine's settings that were given, as flags for both builds."""
        given = self.model_dump(include=self.model_fields_set & set(EngineSettings.model_fields), exclude_none=True)
        values = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
        return [flag for name, each in values.items() for value in each for flag in (f"--{name}", _absolute(value))]


def _absolute(value: object) -> str:
    return str(value.absolute() if isinstance(value, Path) else value)
