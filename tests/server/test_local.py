"""An engine in this process."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gram.server.local import steps
from tests.server.engine.test_engine import submit
from tests.support import make_engine


@pytest.fixture
def _foreground() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt: the tests may run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_foreground")
def test_ctrl_c_stops_between_two_steps_though_its_exception_was_lost(checkpoint: Path) -> None:
    running = steps(make_engine(checkpoint, slots=2), [submit(1, 40, max_steps=1000)], in_flight=1)
    next(running)
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
