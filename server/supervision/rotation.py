"""The models that the engines serve."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Rotation:
    """The models that the engines of all devices serve, by name."""

    folders: dict[str, Path]
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of the files that the first engine loaded: any other must load the same."""
    out: dict[str, str] = field(default_factory=dict)
    """Models that are asked no more -> what is answered in their place."""

    @property
    def over(self) -> bool:
        """Whether no model is left."""
        return 0 < len(self.folders) == len(self.out)

    def remove(self, model: str) -> None:
        """Forget a model."""
        for names in (self.folders, self.fingerprints, self.out):
            names.pop(model, None)
