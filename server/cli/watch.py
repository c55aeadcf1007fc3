"""`--watch`: the live view of a request's trajectories in a terminal."""

import heapq
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from gram.server.cli.drawing import spaced
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StartEvent, StepEvent, TrajectoryEvent

_FRAME_SECONDS = 0.1
_GAP = 3
"""Columns between two boards."""
_MOST_BOARDS = 200
"""More boards fit on no terminal."""

State = Literal["running", "valid", "WRONG", "answered", "pruned"]
_STYLES: dict[State, str] = {"running": "yellow", "valid": "green", "WRONG": "red", "answered": "cyan", "pruned": "dim"}
_ENDED: dict[bool | None, State] = {True: "valid", False: "WRONG", None: "answered"}


@dataclass
class Row:
    """The last known state of a trajectory."""

    index: int
    state: State
    steps: int
    score: float = 0.0
    text: str = ""

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Its sort key: the best score first, pruned trajectories last."""
        return self.state == "pruned", -self.score, self.index


@dataclass
class View:
    """The state of a request, from its events, and its picture."""

    start: StartEvent
    rows: dict[int, Row] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take an event."""
        match event:
            case StepEvent(trajectory=index):
                self.rows[index] = Row(index, "running", event.steps, event.score, event.text)
            case TrajectoryEvent(trajectory=index):
                self.rows[index] = Row(index, _ENDED[event.valid], event.steps, event.score, event.text)
            case PrunedEvent(trajectory=index):
                row = self.rows.setdefault(index, Row(index, "pruned", event.steps))
                row.state, row.steps = "pruned", event.steps

    @property
    def found(self) -> str:
        """The number of distinct valid answers so far; of a task without a checker, of distinct answers."""
        unchecked = any(row.state == "answered" for row in self.rows.values())
        state, kind = ("answered", "distinct") if unchecked else ("valid", "distinct valid")
        return f"{len({row.text for row in self.rows.values() if row.state == state})} {kind} answers"

    @property
    def title(self) -> Text:
        """A line that says how far the request is."""
        states = [row.state for row in self.rows.values()]
        counts = [(f"{states.count(state)} {state}", style) for state, style in _STYLES.items() if state in states]
        known = f"{self.start.model}, seed {self.start.seed}, {self.start.num_trajectories} trajectories: "
        title = Text(known, no_wrap=True, overflow="ellipsis")
        for text, style in counts:
            title.append(f"{text}, ", style)
        return title.append(self.found, "bold")

    def picture(self, width: int, height: int) -> RenderableType:
        """The title, the puzzle, and as many of the best trajectories as there is room for."""
        puzzle = Text("\n".join(["puzzle", *map(spaced, self.start.puzzle.text.split("\n"))]))
        best = heapq.nsmallest(_MOST_BOARDS, self.rows.values(), key=lambda row: row.rank)
        blocks = [puzzle, *map(self._block, best)]
        widest = max(line.cell_len for block in blocks for line in block.split())
        tallest = max(len(block.split()) for block in blocks)
        across = max(1, (width + _GAP) // (widest + _GAP))
        down = max(1, (height - 2) // (tallest + 1))
        grid = Table.grid(*(Column(min_width=widest, no_wrap=True) for _ in range(across)), padding=(0, _GAP, 0, 0))
        for first in range(0, min(len(blocks), across * down), across):
            grid.add_row()
            grid.add_row(*blocks[first : first + across])
        return Group(self.title, grid)

    def _block(self, row: Row) -> Text:
        """A trajectory: its index, score and state above its board."""
        board = row.text.removeprefix(f"{self.start.puzzle.text}\n")  # a graph's answer repeats the puzzle before the colours
        return Text(
            "\n".join([f"#{row.index} {row.score:.3f} {row.state}", *map(spaced, board.split("\n"))]), _STYLES[row.state]
        )


def show(events: Iterable[Event], console: Console | None = None) -> SolveResponse:
    """Show a request's events as they come, clear the view at the end, and return the result."""
    console = console or Console()
    shown_at = -math.inf
    with Live(console=console, transient=True, auto_refresh=False) as live:
        for event in events:
            match event:
                case SolveResponse():
                    return event
                case StartEvent():
                    view = View(event)
                case _:
                    view.take(event)
            if time.monotonic() - shown_at > _FRAME_SECONDS:
                live.update(view.picture(console.width, console.height), refresh=True)
                shown_at = time.monotonic()
    raise AssertionError("events end with a result")
