"""The playground, driven by a real browser against a real server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

pytest.importorskip("playwright")

from playwright.sync_api import Browser, Page, expect

from benchmarks.browser import CHROMIUM, PHONE, chromium, opened, wait_until_ended
from benchmarks.servers import PATIENCE, RunningServer, serving
from gram.server.api.keys import Key, digest
from gram.server.catalog import bundled_models
from tests.support import FIXED_SIZE, unchecked_checkpoint

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

SOLVING = [folder.name for folder in bundled_models()]

AT_WORK = "#run[aria-busy=true] .card"  # in any state: the cards may have ended, where the run goes on
HARD = "..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9"  # few trajectories solve it


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        yield page


def link(url: str, **options: Any) -> str:
    """The address of a run."""
    values = {"mode": "solve", "task": "nqueens-8", "puzzle": "g7 a4", "k": 4, "depth": 16, "temperature": 1, "seed": 1}
    return f"{url}/#{urlencode(values | {'guidance': 'none', 'stop': 'all'} | options)}"


def fill(page: Page, **fields: Any) -> None:
    page.wait_for_selector("#fields:enabled")
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(str(value))


def run(page: Page, **fields: Any) -> None:
    """Fill the form, run it, and wait for the end."""
    fill(page, **fields)
    page.click("#go")
    wait_until_ended(page)


def boards(page: Page) -> dict[str, str]:
    """The text of each trajectory's board."""
    cards = page.locator(".card").evaluate_all(
        "cards => cards.map(card => [card.dataset.trajectory, card.children[1].ariaLabel])"
    )
    return dict(cards)


def ranking(page: Page) -> list[tuple[str, float]]:
    """State and score of each card, in the order on the page."""
    cards = page.locator(".card").evaluate_all(
        "cards => cards.map(card => [card.dataset.state, Number(card.querySelector('.score').textContent)])"
    )
    return [(state, score) for state, score in cards]


def test_it_solves_a_puzzle_of_each_task(page: Page) -> None:
    for task in SOLVING:
        run(page, task=task, k=4, seed=1)
        assert int(page.inner_text("#distinct")) >= 1, task
        assert page.inner_text("#finished") == "4"
        assert page.locator(".card").count() == 4
        assert page.inner_text("#alert") == ""


def test_a_random_puzzle_is_drawn_and_solved(page: Page) -> None:
    fill(page, task="sudoku-4x4", k=2)
    example = page.input_value("#puzzle")
    page.click("#random")
    expect(page.locator("#spelling")).to_contain_text("it was never used in training")
    assert page.input_value("#puzzle") != example
    assert page.is_visible("#preview")
    run(page)
    assert 1 <= int(page.inner_text("#distinct")) <= 2, "a puzzle of few clues has several solutions"


def test_every_spelling_is_an_example_to_click_that_runs(page: Page) -> None:
    fill(page, task="nqueens-8", k=1, depth=1)
    examples = page.locator("#examples button")
    assert examples.count() == 7
    for i, example in enumerate(examples.all()):
        example.click()
        assert page.is_visible("#preview") is (i < 5), "columns and facts are left to the server"
        run(page)
        assert page.inner_text("#alert") == ""


def test_candidates_arrive_before_the_result(page: Page) -> None:
    fill(page, task="nqueens-8", puzzle="d5", k=100_000)
    page.click("#go")
    page.wait_for_selector(f"{AT_WORK} polyline[points*=' ']", state="attached")  # a line has begun
    page.wait_for_selector("#run[aria-busy=true] .card[data-state=valid]")
    page.click("#halt")
    expect(page.locator("#news")).to_have_text("Stopped.")


def test_candidates_are_ranked(page: Page) -> None:
    run(page, task="nqueens-8", puzzle="d5", k=40, depth=4, seed=1)
    cards = ranking(page)
    assert cards == sorted(cards, key=lambda card: (card[0] != "valid", -card[1]))
    assert page.inner_text("#counts") == f"{sum(state == 'valid' for state, _ in cards)} valid, " + (
        f"{sum(state == 'wrong' for state, _ in cards)} wrong"
    )


def test_pruned_trajectories_are_marked_and_an_early_stop_leaves_the_rest(page: Page) -> None:
    run(page, task="sudoku-4x4", k=12, depth=4, seed=1, guidance="prune")
    assert page.locator(".card[data-state=pruned] .badge", has_text="pruned").count() > 0
    assert "pruned" in page.inner_text("#counts")
    run(page, guidance="none", stop="first_valid", k=40)
    assert page.locator(".card .badge", has_text="not needed").count() > 0
    assert page.locator(".card[data-state=valid]").count() == 1


def test_a_run_can_be_stopped(page: Page, server: RunningServer) -> None:
    fill(page, task="sudoku-9x9", puzzle=HARD, k=100_000, depth=64)
    page.click("#go")
    page.wait_for_selector(AT_WORK)
    page.click("#halt")
    expect(page.locator("#news")).to_have_text("Stopped.")
    wait_until_ended(page)
    server.wait_until("gram_active_requests", 0)
    assert page.locator(".card[data-state=stopped]").count() > 0
    assert "first 256 are shown" in page.inner_text("#note")
    assert page.locator(".card").count() == 256


def test_a_new_run_takes_the_place_of_one_that_goes_on(page: Page) -> None:
    fill(page, task="sudoku-4x4", k=100_000)
    page.click("#go")
    page.wait_for_selector(AT_WORK)
    run(page, k=3)
    assert page.inner_text("#news").startswith("Ended: ")
    assert page.inner_text("#finished") == "3"
    assert page.locator(".card").count() == 3


def test_the_link_gives_the_same_boards_again(page: Page) -> None:
    run(page, task="coloring-8", k=6, depth=5, temperature=1.5)
    before, address = boards(page), page.url
    assert len(before) == 6
    page.reload()
    wait_until_ended(page)
    assert boards(page) == before
    assert page.url == address
    assert page.input_value("#depth") == "5"


def test_a_link_to_a_task_that_is_not_there_says_so(page: Page, server: RunningServer) -> None:
    page.goto(link(server.url, task="chess"))
    expect(page.locator("#alert")).to_contain_text("Choose another task")


def test_it_generates_boards(page: Page) -> None:
    page.get_by_text("Generate boards").click()
    assert page.is_hidden("#puzzle")
    assert page.locator("#task option").all_inner_texts() == ["8x8 N-Queens", "4x4 Sudoku", "6x6 Sudoku", "9x9 Sudoku"]
    run(page, task="sudoku-4x4", k=6, seed=1)
    assert int(page.inner_text("#distinct")) > 1
    before = boards(page)
    page.reload()
    wait_until_ended(page)
    assert boards(page) == before


def test_on_a_phone_nothing_scrolls_sideways(browser: Browser, server: RunningServer) -> None:
    with opened(browser, server.url, PHONE, "dark") as page:
        widths = []
        page.wait_for_selector("#fields:enabled")
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
        run(page, task="sudoku-9x9", k=4, depth=2)
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
        expect(page.locator("#summary")).to_be_in_viewport()
        run(page, puzzle="x" * 300)
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
        assert page.inner_text("#alert")
        assert widths == [PHONE[0]] * 3


def test_the_keyboard_reaches_everything_runs_and_stops(page: Page) -> None:
    page.wait_for_selector("#fields:enabled")
    reached: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.id || document.activeElement.value, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline == "solid" or name == "solve", name  # a mode shows its focus on its label
        reached.append(name)
        if name == "go":
            break
    assert {"solve", "task", "puzzle", "random", "k", "depth", "temperature", "seed", "guidance", "stop", "go"} <= set(reached)
    page.focus("#k")
    page.keyboard.press("Control+A")
    page.keyboard.type("100000")
    page.keyboard.press("Enter")
    page.wait_for_selector(AT_WORK)
    page.keyboard.press("Escape")
    expect(page.locator("#news")).to_have_text("Stopped.")
    page.focus("#puzzle")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#news")).to_contain_text("Running")
    page.keyboard.press("Escape")
    expect(page.locator("#news")).to_have_text("Stopped.")


def test_what_is_wrong_with_a_request_is_a_sentence(page: Page) -> None:
    fill(page, task="nqueens-8")
    for fields, sentence in (
        ({"puzzle": "a1 a2"}, "attacks the queen on row 7, column 1 along a column; move or remove one of them. Correct it"),
        ({"puzzle": "[[1, 2"}, "Correct it and run again."),
        ({"puzzle": ""}, "the board has 0 squares; write 8 rows of 8, 64 in all. Correct it"),
        ({"k": 1_000_000}, "this server allows 100000 at most. Correct it and run again."),
    ):
        run(page, **fields)
        expect(page.locator("#alert")).to_contain_text(sentence)
        run(page, k=1, depth=1, puzzle="a1")
        assert page.inner_text("#alert") == ""


def test_it_asks_for_a_key_and_says_when_to_come_again(browser: Browser, checkpoint: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(Key(sha256=digest("secret")).toml("alice"))
    with (
        serving("--model", str(checkpoint), *FIXED_SIZE, "--keys-file", str(keys), "--max-streams", "1") as server,
        opened(browser, server.url) as page,
    ):
        expect(page.locator("#alert")).to_contain_text("needs an API key")
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#alert")).to_contain_text("This server does not know the key")
        page.fill("#key", "secret")
        page.click("#enter")
        run(page, k=1, depth=1)
        assert page.inner_text("#alert") == ""
        body = {"task": "nqueens-8", "puzzle": "a1", "num_trajectories": 100_000, "stream": True}
        headers = {"authorization": "Bearer secret"}
        with httpx.stream("POST", f"{server.url}/v1/solve", json=body, headers=headers, timeout=PATIENCE) as other:
            lines = other.iter_lines()
            next(lines)
            run(page)
            expect(page.locator("#alert")).to_contain_text("1 streams are open, which is the limit. Run again in ")


def test_a_run_outlives_its_engine_but_not_its_server(browser: Browser, checkpoint: Path, hold: Path) -> None:
    with serving("--model", str(checkpoint), *FIXED_SIZE, "--engine-timeout-seconds", str(PATIENCE)) as server:
        server.engine().suspend()  # so that the run is not over before it is killed
        with opened(browser, link(server.url, k=32, depth=6)) as page:
            page.wait_for_selector(AT_WORK)
            hold.touch()
            server.kill_engine()
            expect(page.locator("#alert")).to_contain_text("The engine is restarting. Wait")
            hold.unlink()
            wait_until_ended(page)
            assert page.inner_text("#alert") == ""
            assert page.inner_text("#finished") == "32"
            fill(page, k=100_000)
            page.click("#go")
            page.wait_for_selector(AT_WORK)
            os.kill(server.process.pid, signal.SIGKILL)
            expect(page.locator("#alert")).to_contain_text(
                "The connection to the server was lost. Check that the server is running"
            )


LUMINANCE = """(color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}"""
CONTRAST = f"""(element) => {{
  const luminance = {LUMINANCE};
  let ground = element;
  while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  const levels = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(luminance).sort();
  return (levels[1] + 0.05) / (levels[0] + 0.05);
}}"""
PALETTE_CONTRAST = f"""([one, other]) => {{
  const luminance = {LUMINANCE};
  const of = (name) => {{
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${{name}})`;
    const color = getComputedStyle(probe).color;
    probe.remove();
    return luminance(color);
  }};
  const levels = [of(one), of(other)].sort();
  return (levels[1] + 0.05) / (levels[0] + 0.05);
}}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(browser: Browser, server: RunningServer, scheme: Any) -> None:
    with opened(browser, server.url, scheme=scheme) as page:
        run(page, task="nqueens-10", k=16, depth=3, seed=1, guidance="prune")
        states = {state for state, _ in ranking(page)}
        assert {"wrong", "pruned"} <= states
        texts = page.locator(
            "h1, header p, a, label, .modes span, select, input, textarea, button:enabled, .hint, kbd, dt, dd, small, #counts, "
            ".badge, .name, .depth, .score"
        )
        contrasts = texts.evaluate_all(f"elements => elements.filter((e) => e.checkVisibility()).map({CONTRAST})")
        assert len(contrasts) > 100
        assert min(contrasts) >= 4.5
        for ink in ("ink", "accent", "wrong"):  # what is written on boards
            for ground in ("surface", "square", "given", "fresh"):
                if (ink, ground) != ("accent", "given"):
                    assert page.evaluate(PALETTE_CONTRAST, [ink, ground]) >= 4.5, (ink, ground)
        for ink in ("valid", "wrong", "accent"):  # a card's state
            assert page.evaluate(PALETTE_CONTRAST, [ink, "surface"]) >= 4.5, ink
        for vertex in ("vertex-1", "vertex-2", "vertex-3"):
            assert page.evaluate(PALETTE_CONTRAST, ["on-vertex", vertex]) >= 4.5
        for ground in ("surface", "ground"):  # borders of fields
            assert page.evaluate(PALETTE_CONTRAST, ["edge", ground]) >= 3


def test_answers_that_nothing_checks_are_shown_as_neither_valid_nor_wrong(browser: Browser, tmp_path: Path) -> None:
    flags = ("--model", str(unchecked_checkpoint(tmp_path / "mine")), *FIXED_SIZE)
    with serving(*flags) as server, opened(browser, server.url) as page:
        run(page, task="nine", k=4, depth=2, seed=1)
        assert [state for state, _ in ranking(page)] == ["answered"] * 4
        expect(page.locator("#distinct-label")).to_have_text("distinct")
        expect(page.locator("#counts")).to_have_text("4 answered")
        expect(page.locator("#random")).to_be_disabled()
