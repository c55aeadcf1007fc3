"""`--watch`: what is drawn of real events, and the command in a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from benchmarks.servers import PATIENCE, RunningServer, interruptible
from gram import Client
from gram.server.cli.watch import View, show
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StartEvent, StepEvent, TrajectoryEvent
from tests.server.cli.support import gram

GUIDED: dict[str, Any] = {
    "task": "nqueens-8",
    "num_trajectories": 20,
    "seed": 1,
    "temperature": 2,
    "max_steps": 6,
    "guidance": {"prune": {"keep": 0.6, "steps": [2]}},
}
ROWS, COLUMNS = 50, 120


@pytest.fixture(scope="module")
def events(server: RunningServer) -> list[Event]:
    with Client(server.url) as client, client.solve_stream("g7", stream_steps=True, **GUIDED) as stream:
        return list(stream)


def drawn(view: View, width: int = COLUMNS, height: int = ROWS) -> str:
    console = Console(file=StringIO(), width=width, height=height)
    with console.capture() as captured:
        console.print(view.picture(width, height))
    return captured.get()


def test_the_view_follows_every_trajectory_to_its_end(events: list[Event]) -> None:
    start, *others, result = events
    assert isinstance(start, StartEvent)
    assert isinstance(result, SolveResponse)
    view = View(start)
    seen = set()
    for event in others:
        view.take(event)
        picture = drawn(view)
        assert start.puzzle.text.split("\n")[1] in picture.replace(" ", "")
        match event:
            case StepEvent():
                expected = f"#{event.trajectory} {event.score:.3f} running"
            case TrajectoryEvent():
                expected = f"#{event.trajectory} {event.score:.3f} {'valid' if event.valid else 'WRONG'}"
            case PrunedEvent():
                expected = f"#{event.trajectory} "
                assert re.search(rf"#{event.trajectory} \S+ pruned", picture)
        assert expected in picture
        seen.add(type(event))
    assert seen == {StepEvent, TrajectoryEvent, PrunedEvent}
    states = [row.state for row in view.rows.values()]
    assert "running" not in states
    assert states.count("pruned") == result.pruned
    assert len(states) == result.trajectories
    assert view.found == f"{result.distinct_valid} distinct valid answers"
    assert view.found in drawn(view)


def test_boards_stand_in_the_order_of_their_value_and_the_pruned_last(events: list[Event]) -> None:
    start, *others, _ = events
    assert isinstance(start, StartEvent)
    view = View(start)
    for event in others:
        view.take(event)
        titles = re.findall(r"#(\d+) (\d\.\d{3}) (running|valid|WRONG|pruned)", drawn(view))
        ranks = [(state == "pruned", -float(score)) for _, score, state in titles]
        assert ranks == sorted(ranks)
        assert len(titles) == len(view.rows)


@pytest.mark.parametrize(("width", "height"), [(20, 12), (80, 24), (200, 12)])
def test_there_are_as_many_boards_as_there_is_room_for(events: list[Event], width: int, height: int) -> None:
    start, *others, _ = events
    assert isinstance(start, StartEvent)
    view = View(start)
    for event in others:
        view.take(event)
    lines = drawn(view, width, height).splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_a_graph_is_drawn_without_repeating_its_edges(server: RunningServer) -> None:
    triangle = {"num_vertices": 3, "edges": [[0, 1], [1, 2], [0, 2]]}
    options: dict[str, Any] = {"task": "coloring-8", "stream_steps": True, "num_trajectories": 1, "seed": 1}
    with Client(server.url) as client, client.solve_stream(triangle, **options) as stream:
        start, *others, _ = stream
    assert isinstance(start, StartEvent)
    view = View(start)
    for event in others:
        view.take(event)
    picture = drawn(view)
    assert picture.count("e 1 2") == 1
    assert "n 3 3" in picture


def test_show_returns_the_result_and_leaves_nothing_behind(events: list[Event]) -> None:
    screen = Console(file=StringIO(), force_terminal=True, width=COLUMNS, height=ROWS)
    assert show(iter(events), screen) == events[-1]
    assert "nqueens-8, seed 1, 20 trajectories" in screen.file.getvalue()  # type: ignore[attr-defined]


@dataclass
class Terminal:
    """A `gram` command whose standard output is a terminal."""

    process: subprocess.Popen[bytes]
    _master: int
    screen: str = ""

    def read(self) -> bool:
        """Wait for some output; false where there is no more."""
        try:
            piece = os.read(self._master, 65_536)
        except OSError:  # the other side is closed
            return False
        self.screen += piece.decode()
        return bool(piece)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "gram", *arguments]
    environment = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=slave, stdin=subprocess.DEVNULL, env=environment, preexec_fn=interruptible)
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


OPTIONS = ("--seed", "1", "--num-trajectories", "20", "--temperature", "2", "--max-steps", "6")
CLEARED = "\x1b[2K"


@pytest.mark.parametrize(
    ("command", "model", "where"), [(("solve", "g7"), "nqueens-8", "here"), (("generate",), "nqueens-8", "there")]
)
def test_in_a_terminal_the_boards_are_shown_and_then_the_answer(
    server: RunningServer, command: tuple[str, ...], model: str, where: str
) -> None:
    options = [option.replace("trajectories", "samples") if command[0] == "generate" else option for option in OPTIONS]
    place = ("--url", server.url) if where == "there" else ()
    with terminal(*command, *options, *place, "--watch") as shown:
        while shown.read():
            pass
        assert shown.process.wait(PATIENCE) == 0
    live, _, rest = shown.screen.rpartition(CLEARED)
    assert f"{model}, seed 1, 20 trajectories" in live
    plain = gram(*command, *options, *place)
    assert rest.replace("\r\n", "\n").split(" steps in ")[0].endswith(plain.stdout.split(" steps in ")[0])


def test_ctrl_c_ends_it_and_its_request(server: RunningServer) -> None:
    with terminal("solve", "g7", "--num-trajectories", "100000", "--url", server.url, "--watch") as shown:
        while " running" not in shown.screen:
            assert shown.read()
        shown.process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while shown.read():
                pass
        assert shown.process.wait(PATIENCE) == 130
    assert "\x1b[?25h" in shown.screen, "the cursor is there again"
    server.wait_until("gram_active_requests", 0)


def test_ctrl_c_ends_an_engine_in_this_process() -> None:
    with terminal("solve", "g7", "--num-trajectories", "100000", "--watch") as shown:
        while " running" not in shown.screen:
            assert shown.read()
        shown.process.send_signal(signal.SIGINT)
        while shown.read():
            pass
        assert shown.process.wait(PATIENCE) == 130


def test_elsewhere_the_answer_is_printed_alone(server: RunningServer) -> None:
    watched = gram("solve", "g7", *OPTIONS, "--url", server.url, "--watch")
    plain = gram("solve", "g7", *OPTIONS, "--url", server.url)
    assert watched.stdout.split(" steps in ")[0] == plain.stdout.split(" steps in ")[0]
    assert "\x1b" not in watched.stdout
