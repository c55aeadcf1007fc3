"""Where the jobs are kept, as the settings say or by default."""

import logging
import os
from pathlib import Path

from gram.server.jobs.database import POSTGRES
from gram.server.jobs.errors import StoreError
from gram.server.jobs.store import Store
from gram.server.settings import ServerSettings

log = logging.getLogger("gram")


def open_store(settings: ServerSettings) -> Store | None:
    """The store of a server; None, with a word in the log, if the default file can't be written.

    Raises StoreError if the file that is named can't be used. A PostgreSQL database may come later: until then calls fail.
    """
    address = settings.jobs.get_secret_value() if settings.jobs else str(_default(settings.port))
    store = Store(address, settings)
    try:
        store.open()
    except StoreError as error:
        if address.startswith(POSTGRES):
            log.error("%s; jobs are refused until it answers", error)
            return store
        store.close()
        if settings.jobs:
            raise StoreError(f"{error}; name another file, or a postgresql:// URL, with --jobs") from error
        log.warning("%s; this server takes no jobs: name a file that it can write with --jobs", error)
        return None
    return store


def _default(port: int) -> Path:
    """A file in the user's folder for state, one for each port: a server that is started again goes on with its jobs."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "gram" / f"jobs-{port}.db"
