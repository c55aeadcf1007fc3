"""Measure in a real browser whether the page stays responsive while trajectories run, or take the README's picture."""

import argparse
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.browser import DESKTOP, chromium, opened, wait_until_ended
from benchmarks.servers import RunningServer, serving
from gram.models.tasks import TASKS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_KEYS_EVERY_MS = 100

# The gaps between frames, and how old a key's event is when the page comes to it (both by the browser's clock).
_WATCH = """() => {
  window.gaps = []; window.delays = [];
  let last = performance.now();
  const frame = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  addEventListener("keydown", (event) => delays.push(performance.now() - event.timeStamp), true);
}"""


def address(server: RunningServer, task: str, puzzle: str, **options: object) -> str:
    """Return the address of a run on the page."""
    values: dict[str, object] = {
        "mode": "solve",
        "task": task,
        "puzzle": puzzle,
        "k": 20,
        "depth": 16,
        "temperature": 1,
        "seed": 1,
    }
    return f"{server.url}/#{urlencode(values | {'guidance': 'none', 'stop': 'all'} | options, quote_via=quote)}"


def type_for(page: Page, milliseconds: float) -> None:
    """Press a key now and then until the run ends or this time is over."""
    for _ in range(round(milliseconds / _KEYS_EVERY_MS)):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(_KEYS_EVERY_MS)
        if page.get_attribute("#run", "aria-busy") == "false":
            return


def measure(browser: Browser, server: RunningServer, task: str, count: int, seconds: float) -> str:
    """Return a row of the table: frame gaps and input delays while `count` trajectories run."""
    puzzle = TASKS[task].text(TASKS[task].held_out[0])
    with opened(browser, f"{server.url}/") as page:
        page.wait_for_selector("#fields:enabled")
        page.goto(
            address(server, task, puzzle, k=count)
        )  # only the fragment changes, which the page follows without loading again
        page.wait_for_selector(f".card:nth-child({min(count, 256)})")
        page.focus("#puzzle")
        page.evaluate(_WATCH)
        type_for(page, seconds * 1000)
        gaps, delays = np.array(page.evaluate("gaps")), np.array(page.evaluate("delays"))
        finished, steps = page.inner_text("#finished"), page.inner_text("#steps")
        page.keyboard.press("Escape")
        wait_until_ended(page)
    figures = [f"{np.percentile(values, q):.0f}" for values in (gaps, delays) for q in (50, 95, 100)]
    return f"| {task} | {count} | {finished} of them, {steps} steps | {len(gaps)} | " + " | ".join(figures) + " |"


def picture(browser: Browser, server: RunningServer) -> None:
    """Take the README's picture: a hard Sudoku, when some trajectories have ended and others still run."""
    sudoku = TASKS["sudoku-9x9"].text(TASKS["sudoku-9x9"].test_sets["hard"][0])
    with opened(browser, address(server, "sudoku-9x9", sudoku, temperature=2), DESKTOP, "dark") as page:
        page.wait_for_selector("#run[aria-busy=true] .card[data-state=valid] + .card[data-state=valid]")
        page.wait_for_timeout(400)  # cards glide to their places
        IMAGES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=IMAGES / "page-sudoku-dark.png")


def main() -> None:
    """Print the measurements, or take the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--picture", action="store_true", help="take the README's picture instead of measuring")
    parser.add_argument("--count", type=int, default=200, help="trajectories of each run; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=30, help="longest measurement of each task; default: %(default)s")
    options = parser.parse_args()
    with serving() as server, chromium() as browser:
        if options.picture:
            picture(browser, server)
            return
        print("| task | trajectories | ended meanwhile | frames | frame gap, ms: median | p95 | longest ", end="")
        print("| input delay, ms: median | p95 | longest |")
        print("| --- " * 10 + "|")
        for task in ("nqueens-8", "sudoku-9x9", "coloring-10"):
            print(measure(browser, server, task, options.count, options.seconds))


if __name__ == "__main__":
    main()
