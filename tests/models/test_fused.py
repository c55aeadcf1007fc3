"""Triton's program makes the steps of the plain network, to the precision of its dtype, and each row's by itself."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from gram.kernels.noise import NoiseKey, standard_normal
from gram.models.config import ModelConfig
from gram.models.fused import FusedStep, fused_step, misfit
from gram.models.network import GRAM, State
from gram.models.serving import prepare
from tests.kernels.support import forget_choices

Build = Callable[..., GRAM]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32
ROWS = 3

SMALL = ModelConfig(
    vocab_size=5,
    seq_len=17,
    num_registers=2,
    dim=16,
    num_layers=1,
    mixer_dim=24,
    num_heads=2,
    mlp_dim=24,
    guidance_dim=16,
    low_steps=1,
    transitions=2,
)
LAYOUTS: dict[str, dict[str, Any]] = {
    "positions mixed by a SwiGLU, in two chunks": {"mixer_dim": 70},
    "its norm over positions": {"mixer_norm": "positions"},
    "attention": {"mixing": "attention"},
    "attention, its norm over positions": {"mixing": "attention", "mixer_norm": "positions", "guidance": "none"},
    "attention, one head": {"mixing": "attention", "num_heads": 1, "dim": 64, "transitions": 1, "low_steps": 2},
    "noise only": {"guidance": "noise_only"},
    "no guidance": {"guidance": "none"},
    "two networks": {"shared_core": False, "num_layers": 2, "transitions": 1},
    "one latent": {"flat": True, "transitions": 1},
    "two positions": {"seq_len": 1, "num_registers": 1},
    "a whole tile of positions": {"seq_len": 30, "transitions": 1},
    "128 channels": {"dim": 128, "mlp_dim": 130, "seq_len": 5, "transitions": 1},
    "128 channels, attention": {
        "dim": 128,
        "num_heads": 4,
        "mixing": "attention",
        "seq_len": 5,
        "transitions": 1,
        "guidance": "none",
    },
}


def key_of(rows: int, temperature: Tensor) -> NoiseKey:
    """The columns of one tensor, as in the slot pool."""
    row = torch.arange(rows)
    columns = torch.stack([2**40 * row + 7, row + 1, 3 * row], dim=1).to(DEVICE)
    return NoiseKey(columns[:, 0], columns[:, 1], columns[:, 2], temperature.to(DEVICE))


def rows_of(key: NoiseKey, rows: Tensor) -> NoiseKey:
    return NoiseKey(*(part[rows] for part in key.parts))


def built(random_model: Build, config: ModelConfig, dtype: torch.dtype) -> GRAM:
    return random_model(config, dtype, posterior=False).cast_weights().to(DEVICE)


def inputs(model: GRAM, rows: int) -> tuple[State, Tensor, NoiseKey, Tensor]:
    """The first states of some puzzles, at several temperatures, two of three with noise on a latent."""
    puzzle = torch.randint(5, (rows, model.config.seq_len), generator=torch.Generator().manual_seed(rows)).to(DEVICE)
    row = torch.arange(rows)
    sigmas = torch.stack([(row % 3 == 1) * 0.5, (row % 3 == 2) * 0.25], dim=1).to(DEVICE)
    return model.initial_state(rows), model.encode(puzzle), key_of(rows, (row % 3) * 0.75), sigmas


def error(state: State, exact: State) -> Tensor:
    """The mean error of h and of l, as a share of their mean size."""
    return torch.stack([(z.double().cpu() - x).abs().mean() / x.abs().mean() for z, x in zip(state, exact, strict=True)])


def exact_step(model: GRAM, random_model: Build, state: State, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> State:
    """The step in float64, on the CPU."""
    exact = random_model(model.config, torch.float64, posterior=False).double()
    exact.load_state_dict(model.state_dict())
    key = NoiseKey(*(part.cpu() for part in key.parts))
    wide = exact.perturb(State(*(z.double().cpu() for z in state)), key, sigmas.double().cpu())
    return exact.supervision_step(wide, e_x.double().cpu(), key)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [*((layout, DTYPE) for layout in LAYOUTS), ("its norm over positions", torch.float16), ("attention", torch.bfloat16)],
)
@torch.inference_mode()
def test_a_step_is_that_of_the_plain_network_and_each_row_s_is_its_own(
    random_model: Build, layout: str, dtype: torch.dtype
) -> None:
    model = built(random_model, ModelConfig(**{**SMALL.model_dump(), **LAYOUTS[layout]}), dtype)
    step = FusedStep(model)
    state, e_x, key, sigmas = inputs(model, ROWS)
    after = step(state, e_x, key, sigmas)
    plain = model.supervision_step(model.perturb(state, key, sigmas), e_x, key)
    expected = exact_step(model, random_model, state, e_x, key, sigmas)
    floor = 1e-5 if dtype == torch.float32 else 0.02
    # It rounds less often than the plain network, but the interpreter truncates, and some recursions amplify what there is.
    assert (error(after, expected) <= 3 * error(plain, expected) + floor).all()

    some = torch.tensor([2])
    alone = step(State(*(z[some] for z in state)), e_x[some], rows_of(key, some), sigmas[some])
    assert all(torch.equal(z[some], z_alone) for z, z_alone in zip(after, alone, strict=True))


@torch.inference_mode()
def test_its_noise_is_the_reference_s() -> None:
    """Of an untrained network, whose heads give mu = 0 and one sigma for all channels."""
    model = GRAM(SMALL.model_copy(update={"transitions": 1}), DTYPE, posterior=False).requires_grad_(False).to(DEVICE)
    step, rows = FusedStep(model), 3
    state, e_x, _, sigmas = inputs(model, rows)
    key, still = (key_of(rows, torch.full((rows,), heat)) for heat in (1000.0, 0.0))
    quiet = step(state, e_x, still, sigmas * 0)
    noisy = step(state, e_x, key, sigmas * 0).h.float() - quiet.h.float()
    noise = standard_normal(key.seed, key.index, key.transition, model.config.length, model.config.dim)
    rtol = 2 * torch.finfo(DTYPE).eps
    drawn = noisy / 1000 / torch.tensor(model.config.log_sigma_init).exp()
    torch.testing.assert_close(drawn, noise, rtol=rtol + 1e-5, atol=rtol + 2e-5)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's
@torch.inference_mode()
def test_a_broken_row_stays_broken_and_touches_no_other(random_model: Build) -> None:
    model = built(random_model, SMALL.model_copy(update={"guidance": "none"}), DTYPE)
    step = FusedStep(model)
    state, e_x, key, sigmas = inputs(model, 3)
    whole = step(state, e_x, key, sigmas)
    state.l[1, -1, -1] = torch.inf
    after = step(state, e_x, key, sigmas)
    assert not after.h[1].isfinite().all()
    for z, z_whole in zip(after, whole, strict=True):
        assert torch.equal(z[::2], z_whole[::2])


UNKNOWN = [
    ({"dim": 512}, "it has 512 channels, and 16, 32, 64, 128 are known"),
    ({"seq_len": 900}, "it has 902 positions, and 128 fit"),
]


@pytest.fixture
def _with_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRAM_KERNELS", "triton")
    forget_choices()
    yield
    forget_choices()


@pytest.mark.usefixtures("_with_triton")
@pytest.mark.parametrize(("change", "reason"), UNKNOWN)
def test_other_sizes_are_left_to_the_other_kernels_and_the_log_says_so(
    random_model: Build, change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = built(random_model, SMALL.model_copy(update=change), DTYPE)
    with caplog.at_level(logging.INFO, "gram"):
        assert prepare(model, ROWS) == "Triton"
    assert model.native is None
    (message,) = caplog.messages
    assert reason in message


@pytest.mark.usefixtures("_with_triton")
def test_a_model_that_fits_is_prepared_for_it(random_model: Build) -> None:
    model = built(random_model, SMALL, DTYPE)
    assert prepare(model, ROWS) == "Triton step"
    assert isinstance(model.native, FusedStep)
    assert misfit(SMALL.model_copy(update={"dim": 128, "seq_len": 126}), DTYPE) is None  # the largest


def test_it_compiles_for_a_gpu_without_one_and_fits_into_its_shared_memory() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu_kernels", "--compile"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout
    (shared,) = re.findall(r"([\d,]+) bytes of shared memory", output)
    assert int(shared.replace(",", "")) <= 227 * 1024, "more than an H100's program may have"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mixing", ["swiglu", "attention"])
@torch.inference_mode()
def test_at_full_size_a_row_does_not_depend_on_how_many_there_are(random_model: Build, mixing: str) -> None:
    model = built(random_model, ModelConfig.model_validate({"vocab_size": 10, "seq_len": 81, "mixing": mixing}), torch.bfloat16)
    step = fused_step(model)
    assert step, "the kernel does not compile on this GPU"
    state, e_x, key, sigmas = inputs(model, 257)
    together = step(state, e_x, key, sigmas)
    few = torch.arange(8)
    some = State(*(z[few] for z in state)), e_x[few], rows_of(key, few), sigmas[few]
    plain = model.supervision_step(model.perturb(some[0], some[2], some[3]), some[1], some[2])
    expected = exact_step(model, random_model, *some)
    assert (error(State(*(z[few] for z in together)), expected) <= 3 * error(plain, expected)).all()
    for chosen in (torch.tensor([256]), torch.arange(64, 128), torch.arange(256, -1, -1)):
        alone = step(State(*(z[chosen] for z in state)), e_x[chosen], rows_of(key, chosen), sigmas[chosen])
        assert all(torch.equal(z[chosen], z_alone) for z, z_alone in zip(together, alone, strict=True))
