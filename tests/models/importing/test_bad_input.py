"""What can't be imported is refused in one sentence that says what is wrong, and leaves nothing behind."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gram.models.config import CheckpointError
from gram.models.importing import import_checkpoint
from gram.models.importing.source import Arch
from tests.models.importing.support import PREFIX, random_tensors, small_arch, small_hrm, write_public

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "theirs"


def write(folder: Path, tensors: Tensors | None = None, **all_config: Any) -> Path:
    """A small TRM for 4x4 Sudoku, with these changes of its arch."""
    data = all_config.pop("data", None)
    arch = small_arch(**all_config)
    tensors = random_tensors(arch) if tensors is None else tensors
    return write_public(folder, arch, tensors, data=data, data_paths=["data/sudoku-4x4"])


def refusal(source: Path, task: str | None = None, **given: int) -> str:
    """Why a checkpoint is not imported. Nothing is written."""
    before = {*source.parent.rglob("*")}
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(source, source.parent / "ours", task=task, given=Arch(**given))
    assert {*source.parent.rglob("*")} == before
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class _Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_is_more_than_tensors_is_named_and_never_run(folder: Path) -> None:
    torch.save(random_tensors(small_arch()) | {"trap": _Trap(folder / "sprung")}, write(folder) / "step_7")
    assert "holds more than tensors, posix.mkdir, which is never unpickled" in refusal(folder)


def test_a_plain_pickle_is_refused_and_never_run(folder: Path) -> None:
    (write(folder) / "step_7").write_bytes(pickle.dumps({"trap": _Trap(folder / "sprung")}))
    assert "torch.save did not write it" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
@pytest.mark.parametrize("name", ["step_7", "model.safetensors"])
def test_a_file_that_is_cut_off_is_said_to_be(folder: Path, name: str, kept: int) -> None:
    write(folder)
    save_file(random_tensors(small_arch()), folder / "model.safetensors")
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    message = refusal(folder / name if name != "step_7" else folder)
    assert "can't be read: it is cut off, or " in message


def test_a_missing_file_is_named(folder: Path) -> None:
    assert "No such file" in refusal(folder)


def test_a_folder_without_a_checkpoint_is_told_what_one_is_called(folder: Path) -> None:
    (write(folder) / "step_7").unlink()
    assert "has no checkpoint: no step_N, *.pt, *.pth or *.safetensors" in refusal(folder)


def test_of_several_checkpoints_one_must_be_named(folder: Path) -> None:
    (write(folder) / "step_14").touch()
    assert "has 2 checkpoints; name one of them: step_14, step_7" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.zeros(1)], "holds a list, not tensors by their names"),
        ({"step": 3, "weights": torch.zeros(1)}, "step is a int, not a tensor"),
        ({"a": torch.zeros(1), "model.a": torch.zeros(1)}, "has a twice, with different prefixes"),
    ],
)
def test_a_file_of_something_else_is_refused(folder: Path, content: object, sentence: str) -> None:
    torch.save(content, write(folder) / "step_7")
    assert sentence in refusal(folder)


TENSORS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "an embedding for each puzzle": (
        lambda t: t.update({"puzzle_emb.weights": torch.zeros(876_406, 24)}),
        "puzzle_emb.weights has 876,406 rows, an embedding for each puzzle, as in checkpoints for ARC",
    ),
    "unknown tensors": (
        lambda t: t.update({"rotary.inv_freq": torch.zeros(4)}),
        "has tensors that the public code's network has not, which can't be served: rotary.inv_freq",
    ),
    "no q_head": (lambda t: t.pop("q_head.weight"), "q_head.weight is missing"),
    "no embedding": (
        lambda t: t.pop("embed_tokens.embedding_weight"),
        "embed_tokens.embedding_weight is missing; only checkpoints of TRM's and HRM's public code can be imported",
    ),
    "no puzzle vector": (lambda t: t.pop("puzzle_emb.weights"), "puzzle_emb.weights is missing"),
    "another shape": (
        lambda t: t.update({"L_level.layers.1.mlp.gate_up_proj.weight": torch.zeros(80, 23)}),
        "L_level.layers.1.mlp.gate_up_proj.weight has shape [80, 23], the configuration asks for [80, 24]",
    ),
    "no matrix": (
        lambda t: t.update({"puzzle_emb.weights": torch.zeros(24)}),
        "puzzle_emb.weights has shape [24]; it should be a matrix",
    ),
    "not finite": (lambda t: t["lm_head.weight"].fill_(torch.nan), "lm_head.weight has values that are not finite"),
    "whole numbers": (
        lambda t: t.update({"H_init": torch.zeros(24, dtype=torch.int64)}),
        "H_init is of type torch.int64; weights are floating-point numbers",
    ),
    "a vector wider than the prefix": (
        lambda t: t.update({"puzzle_emb.weights": torch.zeros(1, 96)}),
        "puzzle_emb.weights has 96 numbers, which don't fit into 3 positions of 24",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors_that_cannot_be_served_are_named(folder: Path, change: Callable[[Tensors], object], sentence: str) -> None:
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in random_tensors(small_arch()).items()}
    change(tensors)
    assert sentence in refusal(write(folder, tensors))


ARCH: dict[str, tuple[dict[str, Any], str]] = {
    "learned positions with attention": ({"pos_encodings": "learned"}, "pos_encodings is learned with attention; only rope"),
    "attention without positions": ({"pos_encodings": "none"}, "pos_encodings is none with attention; only rope"),
    "another eps": ({"rms_norm_eps": 1e-6}, "arch.rms_norm_eps is 1e-06; only 1e-05 can be served"),
    "another theta": ({"rope_theta": 1e6}, "arch.rope_theta is 1e+06; only 10000 can be served"),
    "another class": ({"name": "trm_singlez@Other"}, "arch.name is Other; only TinyRecursive"),
    "another family": ({"name": "hrm@HierarchicalReasoningModel_ACTV1"}, "but the tensors are of TRM"),
    "another size": ({"hidden_size": 512}, "hidden_size should be 512, but the tensors have 24; are they of another run?"),
    "other layers": ({"L_layers": 4}, "L_layers should be 4, but the tensors have 2"),
    "another mixer": ({"mlp_t": True}, "mlp_t should be True, but the tensors have False"),
    "heads that do not divide": ({"num_heads": 7}, "dim 24 must be a multiple of 2 * num_heads (14) for RoPE"),
    "an unknown key": ({"highway": True}, "arch.highway: Extra inputs are not permitted; keep the file as"),
    "a word for a number": ({"H_cycles": "three"}, "arch.H_cycles: Input should be a valid integer"),
    "a vector wider than the prefix": ({"puzzle_emb_len": 1, "puzzle_emb_ndim": 48}, "which don't fit into 1 positions of 24"),
}


@pytest.mark.parametrize(("changes", "sentence"), ARCH.values(), ids=ARCH.keys())
def test_a_configuration_that_cannot_be_served_is_named(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    wide = {"puzzle_emb_ndim": changes["puzzle_emb_ndim"]} if "puzzle_emb_ndim" in changes else {}
    assert sentence in refusal(write(folder, random_tensors(small_arch(**wide)), **changes))


def test_a_configuration_that_is_no_yaml_is_refused(folder: Path) -> None:
    (write(folder) / "all_config.yaml").write_text("arch: [")
    assert "all_config.yaml is no YAML" in refusal(folder)


@pytest.mark.parametrize("changes", [{"H_layers": 3}, {"H_layers": 1, "L_layers": 1}])
def test_an_hrm_of_unequal_networks_is_refused(folder: Path, changes: dict[str, int]) -> None:
    tensors = random_tensors(small_hrm())
    if "L_layers" in changes:
        tensors = {name: tensor for name, tensor in tensors.items() if "L_level.layers.1" not in name}
    write_public(folder, small_hrm(**changes), tensors)
    assert "; only equal networks can be served" in refusal(folder)


def test_a_vocabulary_that_is_not_that_of_the_task_is_refused(folder: Path) -> None:
    assert "it answers with 5 symbols in 81 cells, sudoku-9x9 with 10 in 81" in refusal(
        write(folder), task="sudoku-9x9", seq_len=81
    )


def test_a_data_set_of_another_vocabulary_is_refused(folder: Path) -> None:
    write(folder, data={"vocab_size": 11, "seq_len": 16})
    assert "vocab_size should be 11, but the tensors have 6" in refusal(folder)


def test_a_broken_dataset_json_is_refused(folder: Path) -> None:
    write(folder, data={"vocab_size": 6})
    assert "dataset.json: seq_len: Field required" in refusal(folder)


def test_positions_that_do_not_add_up_are_refused(folder: Path) -> None:
    arch = small_arch(mlp_t=True, pos_encodings="none")
    write_public(folder, arch, random_tensors(arch), data={"vocab_size": 6, "seq_len": 15})
    assert "the tensors have 19 positions, not 3 of the prefix and 15 cells" in refusal(folder, task="words")


def test_without_a_configuration_the_missing_flags_are_named_at_once(folder: Path) -> None:
    (write(folder) / "all_config.yaml").unlink()
    sentence = "no all_config.yaml beside it says how it was made; give"
    assert f"{sentence} --prefix, --h-cycles, --l-cycles, --num-heads" in refusal(folder, task="sudoku-4x4")
    assert f"{sentence} --seq-len, --prefix" in refusal(folder, task="words", h_cycles=1, l_cycles=1, num_heads=3)


def test_sizes_of_no_task_need_one_to_be_named(folder: Path) -> None:
    arch = small_arch()
    write_public(folder, arch, random_tensors(arch, vocab_size=30))
    assert "no task has 29 symbols; name it: --task" in refusal(folder)


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    write(folder)
    with pytest.raises(CheckpointError, match=f"^{folder / 'step_7'}.*: (File exists|Not a directory)"):
        import_checkpoint(folder, folder / "step_7" / "ours")


@pytest.mark.parametrize("is_file", [True, False])
def test_what_exists_is_not_overwritten(tmp_path: Path, folder: Path, is_file: bool) -> None:
    out = tmp_path / "ours"
    if is_file:
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(CheckpointError, match="exists already; name another folder"):
        import_checkpoint(write(folder), out, task="sudoku-4x4", given=Arch(seq_len=16))
    assert out.read_text() == "mine" if is_file else [*out.iterdir()] == [out / "mine"]
