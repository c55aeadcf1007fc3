"""The models in rotation: those that the engines of all devices serve."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Rotation:
    """The served models by name, shared by all supervisors."""

    folders: dict[str, Path]
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the files that the first engine loaded. Every other engine must load the same files."""
    kernels: dict[str, str] = field(default_factory=dict)
    """Who makes the steps of each model, in every engine: otherwise its answers would have other last bits."""
    out: dict[str, str] = field(default_factory=dict)
    """Models out of rotation -> the error message that their requests get."""

    @property
    def over(self) -> bool:
        """Whether all models are out of rotation."""
        return 0 < len(self.folders) == len(self.out)

    @property
    def served(self) -> list[Path]:
        """The folders of the models that are not out of rotation."""
        return [folder for model, folder in self.folders.items() if model not in self.out]

    def remove(self, model: str) -> None:
        """Forget a model."""
        for names in (self.folders, self.fingerprints, self.kernels, self.out):
            names.pop(model, None)
