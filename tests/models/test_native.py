"""The kernels for AVX-512 make the steps of the plain network, to the precision of their dtype, and each row's by itself."""

import _ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gram.kernels.cpu.library import computes, load
from gram.kernels.noise import NoiseKey, standard_normal
from gram.models.config import ModelConfig
from gram.models.native import NativeStep, Shown, native_step
from gram.models.network import GRAM, State

Build = Callable[..., GRAM]

ROWS = 5

pytestmark = pytest.mark.skipif(not computes(torch.float32), reason="no kernels for this processor, or no compiler for them")

dtypes = st.sampled_from([torch.float32, *([torch.bfloat16] if computes(torch.bfloat16) else [])])
sizes = st.fixed_dictionaries(
    {
        "seq_len": st.integers(1, 40),
        "num_registers": st.integers(1, 5),
        "dim": st.sampled_from([64, 128, 192]),
        "mixer_dim": st.integers(1, 20).map(lambda half: 2 * half),
        "mlp_dim": st.sampled_from([32, 96, 128]),
        "guidance_dim": st.sampled_from([32, 64]),
        "num_layers": st.integers(1, 2),
        "low_steps": st.integers(1, 3),
        "transitions": st.integers(1, 2),
        "guidance": st.sampled_from(["full", "noise_only", "none"]),
        "mixer_norm": st.sampled_from(["channels", "positions"]),
    }
)
networks = st.sampled_from([{}, {"shared_core": False}, {"flat": True}])


def key_of(rows: int, temperature: Tensor) -> NoiseKey:
    index = torch.arange(rows)
    return NoiseKey(2**40 * index + 7, index + 1, 3 * index, temperature)


def rows_of(key: NoiseKey, rows: Tensor) -> NoiseKey:
    return NoiseKey(*(part[rows] for part in key.parts))


def built(random_model: Build, config: ModelConfig, dtype: torch.dtype) -> tuple[GRAM, NativeStep]:
    model = random_model(config, dtype).cast_weights()
    step = native_step(model)
    assert step
    return model, step


@given(sizes, networks, dtypes, st.integers(0, 2**32 - 1))
@torch.inference_mode()
def test_a_step_is_that_of_the_plain_network_and_each_row_s_is_its_own(
    random_model: Build, changes: dict[str, Any], network: dict[str, Any], dtype: torch.dtype, seed: int
) -> None:
    config = ModelConfig(vocab_size=5, **changes, **network)
    model, step = built(random_model, config, dtype)
    generator = torch.Generator().manual_seed(seed)
    puzzle = torch.randint(5, (ROWS, config.seq_len), generator=generator)
    temperature, sigmas = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0]), torch.zeros(ROWS, 2)
    sigmas[2, 0], sigmas[3, 1] = 0.5, 0.25
    key, state, e_x = key_of(ROWS, temperature), model.initial_state(ROWS), model.encode(puzzle)

    after = step(state, e_x, key, sigmas)
    exact = random_model(config, torch.float64).double()
    exact.load_state_dict(model.state_dict())
    wide = State(*(z.double() for z in state))
    expected = exact.supervision_step(exact.perturb(wide, key, sigmas.double()), e_x.double(), key)
    plain = model.supervision_step(model.perturb(state, key, sigmas), e_x, key)
    for z, z_plain, reference in zip(after, plain, expected, strict=True):
        # It rounds less often than the plain network, but some recursions amplify what little there is.
        error, error_plain = (float((x.double() - reference).abs().mean() / reference.abs().mean()) for x in (z, z_plain))
        assert error <= max(1e-4 if dtype == torch.float32 else 0.05, 10 * error_plain)

    some = torch.tensor([3, 1])
    alone = step(State(*(z[some] for z in state)), e_x[some], rows_of(key, some), sigmas[some])
    assert all(torch.equal(z[some], z_alone) for z, z_alone in zip(after, alone, strict=True))


@given(
    callers=st.sampled_from([1, 3]),
    poison=st.sampled_from([None, torch.nan, torch.inf]),
    dtype=dtypes,
    seed=st.integers(0, 2**32 - 1),
)
@torch.inference_mode()
def test_what_a_step_shows_is_the_readout_of_the_state_after_it(
    random_model: Build, tiny: ModelConfig, callers: int, poison: float | None, dtype: torch.dtype, seed: int
) -> None:
    config = tiny.model_copy(update={"dim": 64, "mlp_dim": 32, "guidance_dim": 32})
    model, step = built(random_model, config, dtype)
    generator = torch.Generator().manual_seed(seed)
    model.heads.weight.copy_(torch.randn(2, 64, generator=generator) / 8)
    step = NativeStep(model)
    state, sigmas, key = model.initial_state(ROWS), torch.zeros(ROWS, 2), key_of(ROWS, torch.ones(ROWS))
    if poison is not None:
        state.l[2, -1, 5] = poison
    puzzles, places = torch.randint(config.vocab_size, (3, config.seq_len), generator=generator), torch.tensor([2, 0, 1, 2, 0])
    e_x, made = model.encode(puzzles), key.transition + config.transitions
    last, threshold = made + torch.tensor([0, 1, 1, 1, 1]), torch.tensor([1.0, 0.0, 0.9, 0.5, 1.0])
    expected = step(state, e_x[places], key, sigmas)
    report = torch.zeros(ROWS, 16 + config.seq_len + 4, dtype=torch.uint8)
    work = step.share(state, e_x, places, key, sigmas, Shown(last, threshold, report))
    callings = [threading.Thread(target=work) for _ in range(callers)]
    for calling in callings:
        calling.start()
    for calling in callings:
        calling.join()
    sound = [row for row in range(ROWS) if poison is None or row != 2]
    for z, z_expected in zip(state, expected, strict=True):
        assert torch.equal(z[sound], z_expected[sound])
    shown, plain = report[:, :16].view(torch.float32), model.read(state, made, last, threshold)
    torch.testing.assert_close(shown[sound, :2], plain.numbers[sound, :2], rtol=1e-5, atol=1e-6)
    assert torch.equal(shown[:, 2], plain.numbers[:, 2])
    assert shown[:, 2].tolist() == [float(row in sound) for row in range(ROWS)]
    halts = shown[:, 0] > threshold
    ends = halts | (shown[:, 2] == 0) | (made >= last)
    assert torch.equal(shown[:, 3], ends.float() + halts)
    logits = model.decode(state.h).double()[sound]
    chosen = logits.gather(2, report[sound, 16 : 16 + config.seq_len, None].long())[..., 0]
    assert (chosen >= logits.amax(2) - (1e-5 if dtype == torch.float32 else 2**-7) * logits.abs().amax(2)).all()


@torch.inference_mode()
def test_its_noise_is_the_reference_s(tiny: ModelConfig) -> None:
    """Of an untrained network, whose heads give mu = 0 and one sigma for all channels."""
    config = tiny.model_copy(update={"dim": 64, "mlp_dim": 32, "guidance_dim": 32, "transitions": 1})
    model, rows = GRAM(config).requires_grad_(False), 50
    step = native_step(model)
    assert step
    state, e_x = model.initial_state(rows), model.encode(torch.zeros(rows, config.seq_len, dtype=torch.int64))
    key, still = (key_of(rows, torch.full((rows,), heat)) for heat in (1.0, 0.0))
    noisy, quiet = (step(state, e_x, each, torch.zeros(rows, 2)).h for each in (key, still))
    noise = standard_normal(key.seed, key.index, key.transition, config.length, config.dim)
    torch.testing.assert_close((noisy - quiet) / torch.tensor(config.log_sigma_init).exp(), noise, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("latent", [0, 1])
@torch.inference_mode()
def test_a_broken_row_stays_broken_and_touches_no_other(
    random_model: Build, tiny: ModelConfig, poison: float, latent: int
) -> None:
    config = tiny.model_copy(update={"dim": 64, "mlp_dim": 32, "guidance_dim": 32})
    model, step = built(random_model, config, torch.float32)
    key, e_x = key_of(3, torch.ones(3)), model.encode(torch.zeros(3, config.seq_len, dtype=torch.int64))
    whole = step(model.initial_state(3), e_x, key, torch.zeros(3, 2))
    state = model.initial_state(3)
    state[latent][1, -1, -1] = poison
    after = step(state, e_x, key, torch.zeros(3, 2))
    assert not after.h[1].isfinite().all()
    for row in (0, 2):
        assert torch.equal(after.h[row], whole.h[row])
        assert torch.equal(after.l[row], whole.l[row])


def test_kernels_that_were_built_from_other_sources_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    other = Path(_ctypes.__file__)  # any library
    assert load(other) is None
    assert f"{other.name} was built by another version: steps are slower; build it again by pip install -e ." in caplog.text


@pytest.mark.parametrize("change", [{"dim": 96}, {"mlp_dim": 40}, {"mixer_dim": 7}, {"mixing": "attention"}])
def test_other_sizes_and_kinds_are_left_to_pytorch(random_model: Build, tiny: ModelConfig, change: dict[str, Any]) -> None:
    config = tiny.model_copy(update={"dim": 64, "mlp_dim": 32, "guidance_dim": 32})
    assert native_step(random_model(config))
    assert not native_step(random_model(config.model_copy(update=change)))
