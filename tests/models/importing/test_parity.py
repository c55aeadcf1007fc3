"""An imported checkpoint computes what the public code computed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from gram.models.config import read_config
from gram.models.importing import import_checkpoint
from tests.models.importing.public import public_steps
from tests.models.importing.support import (
    REFERENCE,
    random_tensors,
    small_arch,
    small_hrm,
    steps,
    unpacked,
    write_public,
)

HRM_NOISE = (1.3e-6, 1.8e-6, 1.5e-6, 3.6e-6)
"""How far the public code's float32 logits are from its float64 ones, after each step: reference/README.md."""
HRM_BFLOAT16_GAP = 0.055


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


@pytest.fixture(scope="module")
def hrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hrm")
    import_checkpoint(unpacked("hrm", folder / "theirs"), folder / "ours")
    return folder / "ours"


@pytest.fixture(scope="module")
def sudoku(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sudoku")
    import_checkpoint(unpacked("trm_mlp_sudoku6", folder / "theirs"), folder / "ours")
    return folder / "ours"


@pytest.fixture(scope="module")
def predictions() -> dict[str, Tensor]:
    return load_file(REFERENCE / "trm_mlp_sudoku6" / "predictions.safetensors")


@pytest.mark.parametrize("served", [True, False])
def test_an_hrm_in_float32_computes_what_its_own_code_did(hrm: Path, served: bool) -> None:
    vectors = load_file(REFERENCE / "hrm" / "vectors.safetensors")
    made = steps(hrm, vectors["inputs"].long() - 1, len(HRM_NOISE), served=served)
    for step, ((logits, heads), noise) in enumerate(zip(made, HRM_NOISE, strict=True)):
        theirs = vectors["logits_float32"][step][..., 1:]  # without PAD
        q0, q1 = vectors["q_halt_logits_float32"][step], vectors["q_continue_logits_float32"][step]
        assert distance(logits, theirs) < 50 * noise
        assert distance(heads.halt, q0 - q1) < 50 * noise
        assert distance(heads.value, q0) < 50 * noise
        assert torch.equal(logits.argmax(-1), theirs.argmax(-1))


def test_an_hrm_in_bfloat16_is_as_near_to_its_own_code_as_bfloat16_is_to_float32(tmp_path: Path) -> None:
    vectors = load_file(REFERENCE / "hrm" / "vectors.safetensors")
    theirs = unpacked("hrm", tmp_path / "theirs")
    tensors = torch.load(theirs / "step_1", weights_only=True)
    torch.save(
        tensors | {f"_orig_mod.model.inner.{n}": vectors[f"{n}_bfloat16"] for n in ("H_init", "L_init")}, theirs / "step_1"
    )
    import_checkpoint(theirs, tmp_path / "ours")
    ((logits, heads),) = steps(tmp_path / "ours", vectors["inputs"].long() - 1, 1, torch.bfloat16)
    assert distance(logits, vectors["logits_bfloat16"][0][..., 1:]) < 2 * HRM_BFLOAT16_GAP
    assert distance(heads.value, vectors["q_halt_logits_bfloat16"][0]) < 2 * HRM_BFLOAT16_GAP


def test_a_trained_trm_that_never_halts_repeats_its_answers_the_wrong_ones_too(
    sudoku: Path, predictions: dict[str, Tensor]
) -> None:
    """On the puzzles whose logits are known, and all that it answers wrongly; of all 500 it takes minutes."""
    theirs = predictions["preds_float32"].long()
    wrong = (theirs != predictions["labels"]).any(1)
    assert wrong.float().mean() == pytest.approx(0.014)
    chosen = torch.cat([torch.arange(16), wrong.nonzero()[:, 0]])
    made = [*steps(sudoku, predictions["inputs"][chosen].long() - 1, 16)]
    for step in (1, 16):
        assert distance(made[step - 1][0][:16], predictions[f"logits16_step{step}_float32"][..., 1:]) < 1e-4  # of 26
    logits, heads = made[-1]
    assert torch.equal(logits.argmax(-1), theirs[chosen] - 1)
    assert distance(heads.value, predictions["q_halt_float32"][chosen]) < 1e-4


def test_a_trained_trm_that_halts_answers_earlier_and_worse(sudoku: Path, predictions: dict[str, Tensor]) -> None:
    ((logits, heads),) = steps(sudoku, predictions["inputs"][:128].long() - 1, 1)
    right = (logits.argmax(-1) == predictions["labels"][:128].long() - 1).all(1)
    assert (heads.halt > 0).float().mean() > 0.95
    assert 0.9 < right.float().mean() < 0.93


def test_a_trained_trm_in_bfloat16_gives_nearly_all_answers_of_its_own_code(
    sudoku: Path, predictions: dict[str, Tensor]
) -> None:
    symbols = predictions["inputs"].long()[:20] - 1
    *_, (logits, _) = steps(sudoku, symbols, 16, torch.bfloat16)
    same = (logits.argmax(-1) == predictions["preds_bfloat16"][:20].long() - 1).all(1)
    assert same.float().mean() >= 0.9


def test_config_json_says_where_a_checkpoint_came_from(sudoku: Path) -> None:
    config = read_config(sudoku)
    assert config.origin is not None
    assert (config.task, config.origin.family, config.origin.source) == ("sudoku-6x6", "TRM", "step_1250")
    assert config.origin.sha256 == hashlib.sha256((sudoku.parent / "theirs" / "step_1250").read_bytes()).hexdigest()
    assert (config.model.transitions, config.model.low_steps, config.model.supervision_steps) == (3, 6, 16)


def test_weights_stay_in_float32_bit_for_bit(sudoku: Path) -> None:
    theirs = torch.load(sudoku.parent / "theirs" / "step_1250", weights_only=True)
    ours = load_file(sudoku / "model.safetensors")
    name = "_orig_mod.model.inner.L_level.layers.1.mlp_t.gate_up_proj.weight"
    assert torch.equal(ours["f_low.mixers.1.swiglu.gate_up.weight"], theirs[name])
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}


def test_the_plain_arithmetic_is_that_of_the_public_code(tmp_path: Path, predictions: dict[str, Tensor]) -> None:
    folder = unpacked("hrm", tmp_path / "hrm")
    vectors = load_file(REFERENCE / "hrm" / "vectors.safetensors")
    arch = yaml.safe_load((folder / "all_config.yaml").read_bytes())["arch"]
    plain = public_steps(torch.load(folder / "step_1", weights_only=True), arch, vectors["inputs"].long(), 4)
    for step, (logits, q) in enumerate(plain):
        assert distance(logits, vectors["logits_float32"][step]) < 2 * HRM_NOISE[step]
        assert distance(q[:, 1], vectors["q_continue_logits_float32"][step]) < 2 * HRM_NOISE[step]

    folder = unpacked("trm_mlp_sudoku6", tmp_path / "sudoku")
    arch = yaml.safe_load((folder / "all_config.yaml").read_bytes())["arch"]
    tensors = torch.load(folder / "step_1250", weights_only=True)
    ((logits, _),) = public_steps(tensors, arch, predictions["inputs"][:16].long(), 1)
    assert distance(logits, predictions["logits16_step1_float32"]) < 2e-5


VARIANTS: dict[str, dict[str, Any]] = {
    "TRM, attention": small_arch(),
    "TRM, mlp_t": small_arch(mlp_t=True, pos_encodings="none"),
    "TRM, mlp_t, learned positions": small_arch(mlp_t=True, pos_encodings="learned"),
    "TRM, wide puzzle vector": small_arch(puzzle_emb_ndim=60),
    "TRM, prefix of the vector's length": small_arch(puzzle_emb_ndim=30, puzzle_emb_len=0),
    "TRM, narrow puzzle vector, trained to continue": small_arch(puzzle_emb_ndim=7, no_ACT_continue=False),
    "TRM, deep": small_arch(L_layers=3, H_cycles=1, L_cycles=1, hidden_size=8, num_heads=1, puzzle_emb_ndim=8),
    "HRM": small_hrm(),
    "HRM, wide puzzle vector": small_hrm(puzzle_emb_ndim=50, H_cycles=3, L_cycles=1),
}


@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("arch", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_kind_computes_what_the_public_code_would(arch: dict[str, Any], served: bool, tmp_path: Path) -> None:
    tensors = random_tensors(arch)
    import_checkpoint(write_public(tmp_path / "theirs", arch, tensors, data_paths=["data/sudoku-4x4"]), tmp_path / "ours")
    inputs = torch.randint(1, 6, (5, 16), generator=torch.Generator().manual_seed(1))
    by_difference = "Hierarchical" in arch["name"] or not arch["no_ACT_continue"]
    for (logits, heads), (theirs, q) in zip(
        steps(tmp_path / "ours", inputs - 1, 3, served=served), public_steps(tensors, arch, inputs, 3), strict=True
    ):
        assert distance(logits, theirs[..., 1:]) < 2e-4
        assert distance(heads.halt, q[:, 0] - q[:, 1] if by_difference else q[:, 0]) < 2e-4
        assert distance(heads.value, q[:, 0]) < 2e-4


@given(data=st.data())
def test_any_sizes_are_imported(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = st.integers(1, 3)
    heads, prefix, layers = data.draw(small), data.draw(small), data.draw(small)
    dim = 4 * heads * data.draw(small)
    arch = data.draw(st.sampled_from([small_arch, small_hrm]))(
        num_heads=heads,
        hidden_size=dim,
        L_layers=layers,
        H_layers=layers,
        L_cycles=data.draw(small),
        H_cycles=data.draw(small),
        puzzle_emb_len=prefix,
        puzzle_emb_ndim=data.draw(st.integers(1, prefix * dim)),
    )
    vocab_size, seq_len = data.draw(st.integers(3, 9)), data.draw(st.integers(1, 12))
    tensors = random_tensors(arch, vocab_size=vocab_size, seq_len=seq_len)
    folder = tmp_path_factory.mktemp("sizes")
    about = {"vocab_size": vocab_size, "seq_len": seq_len}
    write_public(folder, arch, tensors, data=about, data_paths=["data/words"])
    config = import_checkpoint(folder, folder / "ours").config
    assert (config.task, config.checked, config.model.seq_len) == ("words", False, seq_len)
    inputs = torch.arange(2 * seq_len).view(2, seq_len) % (vocab_size - 1)
    (ours,) = steps(folder / "ours", inputs, 1)
    ((theirs, _),) = public_steps(tensors, arch, inputs + 1, 1)
    assert distance(ours[0], theirs[..., 1:]) < 1e-3
