import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gram.models.config import CheckpointError, ModelConfig, describe, read_config

SIZES = [name for name, field in ModelConfig.model_fields.items() if field.annotation is int]


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ModelConfig(**{"vocab_size": 3, "seq_len": 64, **changes})
    return describe(caught.value)


def test_there_are_sizes_to_check() -> None:
    assert {"vocab_size", "seq_len", "num_registers", "dim", "num_layers", "low_steps", "transitions"} <= set(SIZES)


@given(st.sampled_from(SIZES), st.one_of(st.integers(max_value=0), st.floats(0.01, 0.99), st.just("many"), st.none()))
def test_a_size_that_is_not_a_positive_whole_number_is_refused_by_name(name: str, size: object) -> None:
    assert refusal(**{name: size}).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["vocab_size", "seq_len"])
def test_the_task_s_sizes_have_no_default(name: str) -> None:
    sizes = {"vocab_size": 3, "seq_len": 64}
    del sizes[name]
    with pytest.raises(ValidationError, match=name):
        ModelConfig.model_validate(sizes)


def test_an_unknown_key_is_refused_by_name() -> None:
    assert refusal(width=128).startswith("width: ")


@pytest.mark.parametrize(("name", "value"), [("mixing", "convolution"), ("guidance", "half"), ("shared_core", "perhaps")])
def test_an_unknown_choice_is_refused_by_name(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name}: ")


def test_every_bad_key_is_named_at_once() -> None:
    message = refusal(dim=0, num_layers=-1, width=3)
    assert all(f"{name}: " in message for name in ("dim", "num_layers", "width"))


def test_attention_needs_channels_in_pairs_for_each_head() -> None:
    assert "dim 36" in refusal(mixing="attention", dim=36, num_heads=4)
    assert ModelConfig(vocab_size=3, seq_len=64, mixing="attention", dim=40, num_heads=4).dim == 40


def test_a_flat_model_has_one_network() -> None:
    assert "leave out shared_core" in refusal(flat=True, shared_core=False)


def test_channels_come_in_fours_as_the_noise_does() -> None:
    assert "dim 30 must be a multiple of 4" in refusal(dim=30)


def test_the_other_mixing_asks_nothing_of_the_heads() -> None:
    assert ModelConfig(vocab_size=3, seq_len=64, dim=36, num_heads=8).mixing == "swiglu"


@pytest.mark.parametrize("initial", [-9.0, 0.0])
def test_sigma_must_start_within_its_limits(initial: float) -> None:
    assert "log_sigma_init" in refusal(log_sigma_init=initial)


def test_the_state_has_the_puzzle_s_positions_and_the_registers() -> None:
    assert ModelConfig(vocab_size=3, seq_len=64, num_registers=5).length == 69


def test_a_configuration_cannot_change_under_a_model() -> None:
    config = ModelConfig(vocab_size=3, seq_len=64)
    with pytest.raises(ValidationError, match="frozen"):
        config.dim = 64  # type: ignore[misc]


def test_config_json_reads_back_what_was_written(tmp_path: Path, tiny: ModelConfig) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"task": "nqueens-8", "model": tiny.model_dump()}))
    config = read_config(tmp_path)
    assert (config.task, config.model) == ("nqueens-8", tiny)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "file"),
        (b"{", "file"),
        (b"[]", "file"),
        (b"\xff\xfe", "file"),
        (b"{}", "task"),
        (b'{"task": "nqueens-8"}', "model"),
        (b'{"task": "nqueens-8", "model": {"seq_len": 64}}', "model.vocab_size"),
        (b'{"task": "nqueens-8", "model": {"seq_len": 64, "vocab_size": 3, "dim": -1}}', "model.dim"),
        (b'{"task": "nqueens-8", "model": {"seq_len": 64, "vocab_size": 3, "width": 1}}', "model.width"),
        (b'{"task": "nqueens-8", "model": {"seq_len": 64, "vocab_size": 3}, "extra": 1}', "extra"),
    ],
)
def test_a_broken_config_json_is_refused_with_the_file_and_the_key(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert f"{path}: {named}: " in str(caught.value)


def test_a_folder_without_config_json_says_what_a_checkpoint_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*No such file.*config\.json and model\.safetensors"):
        read_config(tmp_path / "nowhere")
