"""API keys: who may call, how often, and by what name the metrics know them. The file holds hashes, never a key."""

import hashlib
import hmac
import json
import logging
import secrets
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gram.models.config import describe

log = logging.getLogger("gram")

LABEL = r"^[A-Za-z0-9_-]{1,64}$"
"""What a key may be called: a bare key in TOML, and a label in the metrics."""


class KeysError(ValueError):
    """A keys file that can't be read; the message says what to do."""


class Key(BaseModel):
    """What the file says of a key, in a table called by its label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the key, in hexadecimal digits")
    requests_per_second: float | None = Field(None, gt=0, description="more are refused with 429 (default: any number)")
    admin: bool = Field(False, description="whether it may load and unload models")

    def toml(self, label: str) -> str:
        """Its table."""
        return "\n".join(
            [f"[{label}]", *(f"{name} = {json.dumps(value)}" for name, value in self.model_dump(exclude_defaults=True).items())]
        )


_FILE = TypeAdapter(dict[Annotated[str, Field(pattern=LABEL)], Key])


def new_key() -> str:
    """A random key of 256 bits: too many to guess, so that its hash needs no salt and no slowness."""
    return "gram_" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file by their labels. Raises KeysError."""
    try:
        return _FILE.validate_python(tomllib.loads(path.read_text()))
    except ValidationError as error:
        raise KeysError(f"{path}: {describe(error)}") from error
    except (OSError, ValueError) as error:
        raise KeysError(f"{path}: {error}; gram key makes a key and its lines for the file") from error


class Keys:
    """The keys of a file. It is read again when it changes, so a key is given out or revoked without a restart."""

    def __init__(self, path: Path) -> None:
        """Raises KeysError."""
        self._path = path
        self._version = self._stat()
        self._keys = read_keys(path)
        self._due: dict[str, float] = {}

    def identify(self, presented: str) -> tuple[str, Key] | None:
        """A key's label and table; found in the same time whatever it has in common with the others."""
        presented_hash, found = digest(presented), None
        for label, key in self._current().items():
            if hmac.compare_digest(key.sha256, presented_hash):
                found = label, key
        return found

    def delay(self, label: str, rate: float, now: float) -> float:
        """Count a request of a key that has so many a second; or the seconds until it may make one, and this one may not.

        It may make a second's worth of requests at once (one, where it has less than one a second).
        """
        due = max(self._due.get(label, now), now) + 1 / rate
        early = due - now - max(1.0, 1 / rate)
        if early > 1e-9:
            return early
        self._due[label] = due
        return 0.0

    def _current(self) -> dict[str, Key]:
        version = self._stat()
        if version != self._version:
            self._version = version
            try:
                self._keys = read_keys(self._path)
                log.info("%s: %d keys", self._path, len(self._keys))
            except KeysError as error:
                log.error("%s; the keys read before stay valid", error)  # a slip of the pen must not lock all out
        return self._keys

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
