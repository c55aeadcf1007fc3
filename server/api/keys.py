"""API keys: who may call and how often, and the label of each key in the metrics. The file holds hashes, never keys."""

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
"""The pattern of a label, which must be a bare key in TOML and a label value in the metrics."""


class KeysError(ValueError):
    """The keys file can't be read; the message says what to do."""


class Key(BaseModel):
    """The entry of a key in the file: a table named by its label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, in hexadecimal digits")
    requests_per_second: float | None = Field(
        None, gt=0, description="rate limit; further requests get 429 (default: no limit)"
    )
    admin: bool = Field(False, description="whether the key may load and unload models")

    def toml(self, label: str) -> str:
        """The entry as TOML, with this label."""
        return "\n".join(
            [f"[{label}]", *(f"{name} = {json.dumps(value)}" for name, value in self.model_dump(exclude_defaults=True).items())]
        )


_FILE = TypeAdapter(dict[Annotated[str, Field(pattern=LABEL)], Key])


def new_key() -> str:
    """A random key of 256 bits. It can't be guessed, so its hash needs no salt and need not be slow."""
    return "gram_" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """The hash of a key, as the file holds it."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, Key]:
    """Read the keys of a file, by their labels. Raises KeysError."""
    try:
        return _FILE.validate_python(tomllib.loads(path.read_text()))
    except ValidationError as error:
        raise KeysError(f"{path}: {describe(error)}") from error
    except (OSError, ValueError) as error:
        raise KeysError(f"{path}: {error}; `gram key` makes a key and its entry in the file") from error


class Keys:
    """The keys of a file, which is read again when it changes: keys are issued and revoked without a restart."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises KeysError."""
        self._path = path
        self._version = self._stat()
        self._keys = read_keys(path)
        self._due: dict[str, float] = {}

    def identify(self, presented: str) -> tuple[str, Key] | None:
        """The label and entry of a key, or None; compared in constant time."""
        presented_hash, found = digest(presented), None
        for label, key in self._current().items():
            if hmac.compare_digest(key.sha256, presented_hash):
                found = label, key
        return found

    def delay(self, label: str, rate: float, now: float) -> float:
        """Count a request of a key with a rate limit, in requests per second; returns 0 if it is admitted.

        Otherwise it returns the seconds until a request is admitted, and counts nothing. A burst may have as many requests as
        one second allows, and at least one.
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
                log.error("%s; the keys that were read before stay valid", error)  # a typo must not lock everybody out
        return self._keys

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
