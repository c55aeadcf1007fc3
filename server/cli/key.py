"""`gram key`."""

import sys

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from gram.server.api.keys import LABEL, Key, digest, new_key


class MakeKey(BaseModel):
    """Make an API key, and print its entry for the server's --keys-file."""

    label: CliPositionalArg[str] = Field(pattern=LABEL, description="name of the key in the metrics and the log")
    requests_per_second: float | None = Field(None, gt=0, description="rate limit of the key (default: no limit)")
    admin: bool = Field(False, description="allow the key to load and unload models")

    def cli_cmd(self) -> None:
        key = new_key()
        entry = Key(sha256=digest(key), requests_per_second=self.requests_per_second, admin=self.admin)
        print(f"# the key, which is shown only here: {key}", file=sys.stderr)
        print(entry.toml(self.label))
