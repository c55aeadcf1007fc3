import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gram.models.checkpoint import load_checkpoint, save_checkpoint
from gram.models.config import CheckpointConfig, CheckpointError, GuidanceKind, ModelConfig
from gram.models.network import GRAM

Build = Callable[..., GRAM]


@pytest.fixture
def model(tiny: ModelConfig, random_model: Build) -> GRAM:
    return random_model(tiny)


def checkpoint_of(model: GRAM) -> CheckpointConfig:
    return CheckpointConfig(task="nqueens-8", model=model.config)


@pytest.fixture
def folder(tmp_path: Path, model: GRAM) -> Path:
    save_checkpoint(tmp_path / "made" / "here", checkpoint_of(model), model)
    return tmp_path / "made" / "here"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> GRAM:
    return load_checkpoint(folder, torch.device("cpu"), dtype)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def edit(folder: Path, **changes: Tensor | None) -> None:
    """Replace, add or (None) remove tensors; a dot in a name is written as two underscores."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("shared_core", [True, False])
@pytest.mark.parametrize("guidance", ["full", "noise_only", "none"])
def test_a_saved_model_comes_back_bit_for_bit_but_its_matrices_to_bfloat16(
    tmp_path: Path, tiny: ModelConfig, random_model: Build, shared_core: bool, guidance: GuidanceKind
) -> None:
    model = random_model(tiny.model_copy(update={"shared_core": shared_core, "guidance": guidance}))
    save_checkpoint(tmp_path, checkpoint_of(model), model)
    loaded, saved = load(tmp_path), model.state_dict()
    matrices = {f"{name}.weight" for name in loaded.matrices}
    assert "decoder.weight" in matrices
    assert not matrices & {"heads.weight", "position", "token_embedding", "initial_h"}
    assert loaded.config == model.config
    assert {"initial_h", "initial_l"} <= loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        expected = saved[name].bfloat16().float() if name in matrices else saved[name]
        assert torch.equal(tensor.view(torch.int32), expected.view(torch.int32)), name
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_in_bfloat16_the_served_model_is_the_saved_one_bit_for_bit(folder: Path, model: GRAM) -> None:
    model.dtype = torch.bfloat16
    model.cast_weights()
    for name, tensor in load(folder, torch.bfloat16).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_matrices_in_float32_are_read_too(folder: Path) -> None:
    edit(folder, decoder__weight=torch.full((3, 16), 1 / 3))
    assert torch.equal(load(folder).decoder.weight, torch.full((3, 16), 1 / 3))


def test_a_tensor_of_another_type_is_named_with_the_types_that_the_format_has(folder: Path) -> None:
    edit(folder, decoder__weight=torch.zeros(3, 16, dtype=torch.float16), position=torch.zeros(66, 16, dtype=torch.bfloat16))
    message = refusal(folder)
    assert "decoder.weight is of type torch.float16, the format asks for torch.bfloat16 or torch.float32" in message
    assert "position is of type torch.bfloat16, the format asks for torch.float32" in message


def test_two_saves_of_one_model_are_the_same_files(folder: Path, model: GRAM, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint_of(model), model)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_posterior_stays_out_of_the_file_and_a_shared_core_is_stored_once(folder: Path) -> None:
    names = load_file(folder / "model.safetensors").keys()
    assert any(name.startswith("f_low.") for name in names)
    assert not any(name.startswith(("posterior.", "target_embedding", "f_high.")) for name in names)


def test_a_file_that_still_holds_the_posterior_is_read_without_it(folder: Path) -> None:
    edit(folder, posterior__log_sigma_bias=torch.zeros(16), target_embedding=torch.zeros(3, 16))
    assert not hasattr(load(folder), "posterior")


def test_the_matrices_are_served_in_the_asked_dtype_and_the_rest_in_float32(folder: Path) -> None:
    loaded = load(folder, torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in loaded.state_dict().items()}
    assert dtypes["decoder.weight"] == torch.bfloat16
    assert all(dtypes[name] == torch.bfloat16 for name in dtypes if name.startswith(("f_low.", "prior.mean.")))
    assert all(dtypes[n] == torch.float32 for n in ("heads.weight", "initial_h", "position", "token_embedding"))


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit(folder, initial_l=None)
    assert "initial_l is missing" in refusal(folder)


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    edit(folder, f_third__weight=torch.zeros(2))
    assert "f_third.weight is unexpected" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    edit(folder, decoder__weight=torch.zeros(4, 16))
    assert "decoder.weight has shape [4, 16], the configuration asks for [3, 16]" in refusal(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_tensor_with_one_value_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    position = load_file(folder / "model.safetensors")["position"]
    position[3, 5] = value
    edit(folder, position=position)
    assert "position has values that are not finite" in refusal(folder)


def test_a_tensor_of_a_type_that_torch_cannot_check_is_refused_by_name(folder: Path) -> None:
    edit(folder, position=torch.zeros(66, 16, dtype=torch.float8_e4m3fn))
    assert "position" in refusal(folder)


def test_all_that_is_wrong_is_named_at_once(folder: Path) -> None:
    edit(folder, initial_h=None, extra=torch.zeros(1), heads__bias=torch.zeros(3), position=torch.full((66, 16), torch.nan))
    message = refusal(folder)
    assert all(name in message for name in ("initial_h is missing", "extra is unexpected", "heads.bias has", "position has"))
    assert "decoder" not in message


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refusal(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere")


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(folder)


def test_a_broken_config_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"task": "nqueens-8", "model": ')
    assert "config.json" in refusal(folder)


def test_weights_of_another_configuration_are_refused(
    folder: Path, tmp_path: Path, random_model: Build, tiny: ModelConfig
) -> None:
    deeper = random_model(tiny.model_copy(update={"num_layers": 2}))
    save_checkpoint(tmp_path, checkpoint_of(deeper), deeper)
    (folder / "model.safetensors").replace(tmp_path / "model.safetensors")
    assert "f_low.mlps.1.down.weight is missing" in refusal(tmp_path)


class _Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_a_pickle_is_refused_and_never_run(folder: Path, write: Callable[[object, Path], object]) -> None:
    sprung = folder / "sprung"
    write({"position": _Trap(sprung)}, folder / "model.safetensors")
    refusal(folder)
    assert not sprung.exists()
