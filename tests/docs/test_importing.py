"""Follows docs/importing.md to the letter: a TRM of the public code is imported, served, asked, measured and traced."""

import json
import re
import shutil
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.servers import free_port
from tests.docs.support import ROOT, Workplace, background, blocks
from tests.models.importing.support import REFERENCE, unpacked
from tests.support import write_data_set

PAGE = ROOT / "docs" / "importing.md"
COUNT = 8
"""Puzzles of the data set, of 500."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks the server with curl")
def test_a_reader_who_follows_the_page_gets_an_answer_of_a_checkpoint_of_the_public_code(tmp_path: Path) -> None:
    unpacked("trm_mlp_sudoku6", tmp_path / "trm")
    theirs = load_file(REFERENCE / "trm_mlp_sudoku6" / "predictions.safetensors")
    puzzles, labels = (theirs[name][:COUNT].long().numpy() - 1 for name in ("inputs", "labels"))
    write_data_set(tmp_path / "data" / "test", puzzles, labels, 7)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = Workplace(tmp_path, code=ROOT, GRAM_PORT=str(port), GRAM_SLOTS="8", GRAM_THREADS="1")

    imports, serve, ask, measure, trace = blocks(PAGE)
    assert "answers sudoku-6x6: 36 cells of 7 symbols" in place.run(imports.code)
    with background(serve.code, place, url):
        answer = json.loads(place.run(ask.code, url))
        with urllib.request.urlopen(f"{url}/v1/models") as response:
            (model,) = json.load(response)
    assert answer["trajectories"] == 20
    assert answer["candidates"][0]["valid"]
    assert (model["name"], model["origin"]["family"], model["origin"]["source"]) == ("my-trm", "TRM", "step_1250")

    report = place.run(measure.code)
    (never,) = re.findall(r"^\| +never \|.*?([0-9.]+)%", report, re.MULTILINE)
    right = (theirs["preds_float32"] == theirs["labels"])[:COUNT].all(1).float().mean()
    assert float(never) == pytest.approx(100 * float(right), abs=100 / COUNT)  # bfloat16, where the machine has it

    place.run(trace.code)
    traced = load_file(tmp_path / "trace.safetensors")
    assert torch.equal(traced["logits"][-1].argmax(-1), theirs["preds_float32"][:COUNT].long() - 1)
