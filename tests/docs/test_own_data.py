"""Follows docs/own-data.md to the letter: arrays are built, trained on, measured and served."""

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.servers import free_port
from tests.docs.support import ROOT, Block, Workplace, background, blocks, named

PAGE = ROOT / "docs" / "own-data.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks the server with curl")
def test_a_reader_who_follows_the_page_gets_an_answer_of_a_model_of_their_data(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = Workplace(tmp_path, code=ROOT, GRAM_PORT=str(port), GRAM_SLOTS="8", GRAM_THREADS="1")
    printed = []

    def follow(block: Block) -> None:
        if block.language == "bash":
            printed.append(place.run(block.code, url))
        else:
            (tmp_path / named(block)).write_text(block.code)

    steps = blocks(PAGE)
    serve = next(i for i, block in enumerate(steps) if "gram serve" in block.code)
    for block in steps[:serve]:
        follow(block)
    with background(steps[serve].code, place, url):
        for block in steps[serve + 1 :]:
            follow(block)

    _, trained, measured, answered, published = printed
    assert "measure it with: gram eval my-mirrors --data mirrors" in trained
    assert "500 puzzles, 500 with a known answer" in measured
    for report in (measured, published):
        (never,) = re.findall(r"^\| +never \|.*?([0-9.]+)%", report, re.MULTILINE)
        assert float(never) > 90
    answer = json.loads(answered)
    (best,) = answer["candidates"]
    assert (best["valid"], answer["distinct_valid"], answer["solutions"]) == (None, None, None)
    assert best["grid"] == [1, 2, 2, 1, 3, 1, 1, 3, 2, 2, 2, 2, 1, 3, 3, 1]
