"""The ways in which people keep checkpoints of the public code, and what the importer finds out by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gram.models.config import CheckpointError
from gram.models.importing import Imported, import_checkpoint
from gram.models.importing.layout import find_task
from gram.models.importing.source import Arch
from tests.models.importing.support import PREFIX, random_tensors, small_arch, small_hrm, write_public

Tensors = dict[str, Tensor]


def plain(tensors: Tensors, prefix: str = "") -> Tensors:
    return {prefix + name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def averaged(tensors: Tensors) -> dict[str, object]:
    """Parameters alone are averaged; the buffers are in the model."""
    buffers = ("H_init", "L_init", "puzzle_emb.weights")
    model = {name: tensor if name.endswith(buffers) else tensor + 1 for name, tensor in tensors.items()}
    return {"model": model, "ema": {name: tensor for name, tensor in tensors.items() if not name.endswith(buffers)}}


WRAPPINGS: dict[str, Callable[[Tensors], object]] = {
    "without a prefix": plain,
    "without torch.compile": lambda tensors: plain(tensors, "model.inner."),
    "the inner model": lambda tensors: plain(tensors, "inner."),
    "in model_state_dict": lambda tensors: {"model_state_dict": tensors, "step": 7},
    "in model": lambda tensors: {"model": tensors, "optimizer": {"lr": 1e-4}},
    "averaged beside the others": averaged,
    "averaged alone": lambda tensors: {"ema": plain(tensors)},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, Tensors]:
    """The tensors of a small TRM, and what they become."""
    folder = tmp_path_factory.mktemp("expected")
    tensors = random_tensors(small_arch())
    imported(folder, tensors)
    return tensors, load_file(folder / "ours" / "model.safetensors")


def imported(folder: Path, content: object, name: str = "step_7") -> Imported:
    write_public(folder / "theirs", small_arch(), {}, data_paths=["data/sudoku-4x4"])
    (folder / "theirs" / "step_7").unlink()
    torch.save(content, folder / "theirs" / name)
    return import_checkpoint(folder / "theirs", folder / "ours")


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_however_it_is_wrapped_the_same_weights_come_out(
    wrap: Callable[[Tensors], object], expected: tuple[Tensors, Tensors], tmp_path: Path
) -> None:
    tensors, ours = expected
    imported(tmp_path, wrap(tensors), "best.pt")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == ours.keys()
    assert all(torch.equal(written[name], ours[name]) for name in ours)


def test_safetensors_are_read_too(expected: tuple[Tensors, Tensors], tmp_path: Path) -> None:
    tensors, ours = expected
    folder = write_public(tmp_path / "theirs", small_arch(), {}, data_paths=["data/sudoku-4x4"])
    save_file(tensors, folder / "weights.safetensors")
    import_checkpoint(folder / "weights.safetensors", tmp_path / "ours")
    assert torch.equal(load_file(tmp_path / "ours" / "model.safetensors")["decoder.weight"], ours["decoder.weight"])


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(small_arch())
    left_out = imported(tmp_path, {"model": tensors, "optimizer": {"lr": 1e-4}}).left_out
    assert left_out == [
        "row 0 of embed_tokens and of lm_head, which is PAD's",
        "row 1 of q_head, which is not trained where no_ACT_continue is true",
        "optimizer, which is beside the weights",
    ]


@pytest.mark.parametrize(
    ("arch", "given"),
    [
        (small_arch(), Arch(h_cycles=2, l_cycles=3, num_heads=3, puzzle_emb_len=3)),
        (small_arch(mlp_t=True, pos_encodings="none"), Arch(h_cycles=2, l_cycles=3)),
        (small_hrm(), Arch(h_cycles=2, l_cycles=3, num_heads=3)),
    ],
    ids=["TRM, attention", "TRM, mlp_t", "HRM"],
)
def test_without_a_configuration_few_flags_suffice(arch: dict[str, Any], given: Arch, tmp_path: Path) -> None:
    folder = write_public(tmp_path / "theirs", arch, random_tensors(arch))
    with_file = import_checkpoint(folder, tmp_path / "with", task="sudoku-4x4", given=Arch(seq_len=16)).config.model
    (folder / "all_config.yaml").unlink()
    without = import_checkpoint(folder, tmp_path / "without", task="sudoku-4x4", given=given).config.model
    ours = {"supervision_steps", "num_heads"} if arch.get("mlp_t") else {"supervision_steps"}
    assert without.model_dump(exclude=ours) == with_file.model_dump(exclude=ours)


def test_flags_precede_the_configuration(tmp_path: Path) -> None:
    arch = small_arch()
    folder = write_public(tmp_path / "theirs", arch, random_tensors(arch), data_paths=["data/sudoku-4x4"])
    config = import_checkpoint(folder, tmp_path / "ours", given=Arch(l_cycles=5)).config
    assert (config.model.low_steps, config.model.transitions) == (5, 2)


@pytest.mark.parametrize(
    ("vocab_size", "seq_len", "data_name", "task"),
    [
        (10, 81, None, "sudoku-9x9"),
        (10, None, "sudoku-extreme-1k-aug-1000", "sudoku-9x9"),
        (7, 36, "sudoku6", "sudoku-6x6"),
        (5, 16, None, "sudoku-4x4"),
        (5, None, "maze-30x30-hard-1k", "maze-30x30"),
        (5, 900, None, "maze-30x30"),
        (11, 900, "arc", "arc"),
        (3, 64, "queens", "queens"),  # of N-Queens the symbols may be others than ours
    ],
)
def test_the_task_is_known_by_its_sizes_or_named_as_its_data(
    vocab_size: int, seq_len: int | None, data_name: str | None, task: str
) -> None:
    registered, name = find_task(None, vocab_size, seq_len, data_name)
    assert name == task
    assert (registered is not None) == task.startswith(("sudoku", "maze"))


def test_a_task_that_may_be_one_of_several_must_be_named() -> None:
    with pytest.raises(
        CheckpointError, match="its puzzles may be of sudoku-4x4 or maze-8x8 or maze-30x30; name one with --task"
    ):
        find_task(None, 5, None, "boards")
