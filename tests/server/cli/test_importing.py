"""`gram import` and `gram trace`, as a person uses them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gram.models.checkpoint import load_checkpoint
from gram.models.config import ZOO
from tests.models.importing.support import random_tensors, small_arch, steps, write_public
from tests.server.cli.support import gram
from tests.support import write_data_set

BLANK = "0" * 16


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    arch = small_arch()
    data = {"vocab_size": 6, "seq_len": 16}
    return write_public(tmp_path / "theirs", arch, random_tensors(arch), data=data)


@pytest.fixture
def ours(theirs: Path, tmp_path: Path) -> Path:
    assert gram("import", str(theirs), "--out", str(tmp_path / "ours")).returncode == 0
    return tmp_path / "ours"


def test_import_tells_what_it_found_left_out_and_wrote(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "ours"
    done = gram("import", str(theirs), "--out", str(out))
    assert done.returncode == 0, done.stderr
    first, task, *left_out, last = done.stdout.splitlines()
    assert first.startswith("TRM, ")
    assert " numbers from step_7 of SHA-256 " in first
    assert task == "answers sudoku-4x4: 16 cells of 5 symbols"
    assert [line.split(",")[0] for line in left_out] == [
        "left out: row 0 of embed_tokens and of lm_head",
        "left out: row 1 of q_head",
    ]
    assert last == f"wrote {out}; serve it with: gram serve --model {out}"
    assert load_checkpoint(out, torch.device("cpu"), torch.float32).config.dim == 24


def test_flags_are_those_that_the_error_asks_for(theirs: Path, tmp_path: Path) -> None:
    (theirs / "all_config.yaml").unlink()
    command = ("import", str(theirs), "--out", str(tmp_path / "ours"))
    refused = gram(*command)
    assert refused.returncode == 1
    assert refused.stderr.startswith("gram: ")
    assert "give --prefix, --h-cycles, --l-cycles, --num-heads" in refused.stderr
    done = gram(*command, "--prefix", "3", "--h-cycles", "2", "--l-cycles", "3", "--num-heads", "3")
    assert done.returncode == 0, done.stderr


def test_trace_writes_each_step_of_a_data_set(ours: Path, tmp_path: Path) -> None:
    symbols = np.random.default_rng(0).integers(0, 5, (40, 16))
    data = write_data_set(tmp_path / "data", symbols, None, 5)
    done = gram("trace", str(ours), "--inputs", str(data), "--steps", "3", "--out", str(tmp_path / "t.safetensors"), "--states")
    assert done.returncode == 0, done.stderr
    assert "logits [3, 40, 16, 5], halt [3, 40], value [3, 40], h [3, 40, 19, 24]" in done.stdout
    traced = load_file(tmp_path / "t.safetensors")
    assert torch.equal(traced["inputs"], torch.from_numpy(symbols))
    for step, (logits, heads) in enumerate(steps(ours, torch.from_numpy(symbols), 3)):
        assert torch.equal(traced["logits"][step], logits)
        assert torch.equal(traced["halt"][step], heads.halt)
        assert torch.equal(traced["value"][step], heads.value)
    assert {tensor.dtype for name, tensor in traced.items() if name != "inputs"} == {torch.float32}


def test_trace_reads_puzzles_as_people_write_them_and_repeats_the_noise_of_a_seed(tmp_path: Path) -> None:
    (tmp_path / "puzzles.txt").write_text("1.../.2../..3./...4\n" + BLANK + "\n")
    command = ("trace", str(ZOO / "sudoku-4x4"), "--inputs", str(tmp_path / "puzzles.txt"), "--steps", "2", "--out")
    made = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        done = gram(*command, str(tmp_path / name), "--seed", seed)
        assert done.returncode == 0, done.stderr
        made.append(load_file(tmp_path / name)["logits"])
    first, again, other = made
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_trace_names_the_line_of_a_puzzle_that_it_cannot_read(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "puzzles.txt").write_text(f"{BLANK}\n7{BLANK[1:]}\n")
    out = tmp_path / "t"
    refused = gram("trace", str(ours), "--inputs", str(tmp_path / "puzzles.txt"), "--steps", "1", "--out", str(out))
    assert f"{tmp_path / 'puzzles.txt'}, line 2: " in refused.stderr
    assert not out.exists()
    refused = gram("trace", str(ours), "--inputs", str(tmp_path / "puzzles.txt"), "--steps", "1", "--out", str(out / "t"))
    assert f"there is no folder {out}" in refused.stderr
