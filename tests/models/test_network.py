from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from gram.kernels.dispatch import uses_triton
from gram.kernels.noise import NoiseKey
from gram.models.config import GuidanceKind, Mixing, ModelConfig
from gram.models.network import GRAM, Heads, State
from tests.kernels.support import forget_choices

ROWS = 5
Build = Callable[..., GRAM]
guidances = pytest.mark.parametrize("guidance", ["full", "noise_only", "none"])
mixings = pytest.mark.parametrize("mixing", ["swiglu", "attention"])


@pytest.fixture
def puzzle(tiny: ModelConfig) -> Tensor:
    return torch.randint(tiny.vocab_size, (ROWS, tiny.seq_len), generator=torch.Generator().manual_seed(0))


def advance(
    model: GRAM, puzzle: Tensor, state: State | None = None, *, made: int = 0, seed: int = 1, temperature: float = 1.0
) -> State:
    """A supervision step of every row: each its own trajectory of one seed, `made` transitions behind it."""
    rows, device = len(puzzle), puzzle.device
    key = NoiseKey(
        torch.full((rows,), seed, device=device),
        torch.arange(rows, device=device),
        torch.full((rows,), made, device=device),
        torch.full((rows,), temperature, device=device),
    )
    return model.supervision_step(model.initial_state(rows) if state is None else state, model.encode(puzzle), key)


def same(a: State | Heads, b: State | Heads) -> bool:
    """Bit for bit, up to the sign of zero."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@guidances
@mixings
def test_every_result_has_the_documented_shape(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, guidance: GuidanceKind, mixing: Mixing
) -> None:
    model = random_model(tiny.model_copy(update={"guidance": guidance, "mixing": mixing}))
    latent = (ROWS, tiny.num_registers + tiny.seq_len, tiny.dim)
    state = advance(model, puzzle)
    assert model.encode(puzzle).shape == state.h.shape == state.l.shape == latent
    assert model.decode(state.h).shape == (ROWS, tiny.seq_len, tiny.vocab_size)
    heads = model.read_heads(state.h)
    assert heads.halt.shape == heads.value.shape == (ROWS,)
    assert all(t.isfinite().all() for t in (*state, *heads, model.decode(state.h)))


def test_every_row_starts_from_z_0(tiny: ModelConfig, random_model: Build) -> None:
    model = random_model(tiny)
    state = model.initial_state(ROWS)
    state.h[0] += 1
    assert torch.equal(state.h[1], model.initial_h)
    assert torch.equal(state.l[1], model.initial_l)
    assert torch.equal(model.initial_state(ROWS).h[0], model.initial_h), "a row's state must not be z_0 itself"


@pytest.mark.parametrize("guidance", ["full", "noise_only"])
def test_a_step_is_repeatable_and_another_seed_gives_another_state(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, guidance: GuidanceKind
) -> None:
    model = random_model(tiny.model_copy(update={"guidance": guidance}))
    torch.manual_seed(1)
    first = advance(model, puzzle, seed=7)
    torch.manual_seed(2)
    assert same(first, advance(model, puzzle, seed=7)), "the global generator must play no part"
    assert not same(first, advance(model, puzzle, seed=8))
    assert not same(first, advance(model, puzzle, seed=7, made=2))


def test_without_guidance_seed_and_temperature_change_nothing(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    model = random_model(tiny.model_copy(update={"guidance": "none"}))
    assert same(advance(model, puzzle, seed=7), advance(model, puzzle, seed=8, temperature=3.0))
    assert not any(name.startswith(("prior", "posterior", "target_embedding")) for name in model.state_dict())


@pytest.mark.parametrize(("guidance", "moved"), [("full", True), ("noise_only", False)])
def test_at_temperature_zero_only_the_learned_mean_moves_u(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, guidance: GuidanceKind, moved: bool
) -> None:
    model = random_model(tiny.model_copy(update={"guidance": guidance, "transitions": 1}))
    proposed = model.propose(model.initial_state(ROWS), model.encode(puzzle))
    assert same(advance(model, puzzle, temperature=0.0), proposed) is not moved


def test_a_step_of_two_transitions_is_two_steps_of_one(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    whole = advance(random_model(tiny), puzzle)
    single = random_model(tiny.model_copy(update={"transitions": 1}))
    assert same(whole, advance(single, puzzle, advance(single, puzzle), made=1))
    assert not same(whole, advance(single, puzzle, advance(single, puzzle), made=0)), "each transition has noise of its own"


@mixings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_row_leaves_the_others_untouched(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, mixing: Mixing, dtype: torch.dtype
) -> None:
    model = random_model(tiny.model_copy(update={"mixing": mixing}), dtype)
    state = model.initial_state(ROWS)
    whole = advance(model, puzzle, state)
    state.h[2] = torch.nan
    broken = advance(model, puzzle, state)
    others = torch.arange(ROWS) != 2
    assert broken.h[2].isnan().any()
    assert same(State(whole.h[others], whole.l[others]), State(broken.h[others], broken.l[others]))
    heads, after = model.read_heads(whole.h), model.read_heads(broken.h)
    assert same(Heads(heads.halt[others], heads.value[others]), Heads(after.halt[others], after.value[others]))
    assert torch.equal(model.decode(whole.h)[others], model.decode(broken.h)[others])


@mixings
def test_a_row_alone_ends_where_it_does_in_company(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, mixing: Mixing
) -> None:
    model = random_model(tiny.model_copy(update={"mixing": mixing}))
    whole, alone = advance(model, puzzle), advance(model, puzzle[:1])
    torch.testing.assert_close(alone.h[0], whole.h[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.l[0], whole.l[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("guidance", "mixing"), [("full", "swiglu"), ("full", "attention"), ("none", "swiglu")])
def test_the_state_stays_bounded_far_beyond_the_depth_of_training(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, guidance: GuidanceKind, mixing: Mixing
) -> None:
    model = random_model(tiny.model_copy(update={"guidance": guidance, "mixing": mixing, "seq_len": 7, "transitions": 1}))
    state, scales = model.initial_state(ROWS), []
    for step in range(200):
        state = advance(model, puzzle[:, :7], state, made=step, temperature=3.0)
        scales.append([half.square().mean().sqrt().item() for half in state])
    h, low = torch.tensor(scales).unbind(1)
    assert low.max() < 1.01
    assert h[100:].max() < 1.5 * h[:10].max()


@guidances
def test_the_posterior_may_be_left_out(tiny: ModelConfig, puzzle: Tensor, random_model: Build, guidance: GuidanceKind) -> None:
    config = tiny.model_copy(update={"guidance": guidance})
    served, trained = random_model(config, posterior=False), random_model(config)
    extra = trained.state_dict().keys() - served.state_dict().keys()
    assert all(name.startswith(("posterior.", "target_embedding")) for name in extra)
    assert bool(extra) is (guidance != "none")
    served.load_state_dict({name: t for name, t in trained.state_dict().items() if name not in extra})
    assert same(advance(served, puzzle), advance(trained, puzzle))


def test_the_posterior_reads_both_the_proposal_and_the_target(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    model = random_model(tiny)
    u = model.propose(model.initial_state(ROWS), model.encode(puzzle)).h
    mean = model.read_posterior(u, puzzle).mean
    assert not torch.equal(mean, model.read_posterior(u, (puzzle + 1) % tiny.vocab_size).mean)
    assert not torch.equal(mean, model.read_posterior(u + 1, puzzle).mean)


def test_a_new_model_adds_no_mean_and_starts_at_the_configured_sigma(tiny: ModelConfig, puzzle: Tensor) -> None:
    model = GRAM(tiny)
    u = model.propose(model.initial_state(ROWS), model.encode(puzzle)).h
    for gaussian in (model.prior(u), model.read_posterior(u, puzzle)):
        assert not gaussian.mean.any()
        assert (gaussian.log_sigma == tiny.log_sigma_init).all()


def test_sigma_stays_within_its_limits(tiny: ModelConfig, random_model: Build) -> None:
    log_sigma = random_model(tiny).prior(1e3 * torch.randn(ROWS, tiny.length, tiny.dim)).log_sigma
    assert log_sigma.min() == tiny.log_sigma_min
    assert log_sigma.max() == tiny.log_sigma_max


def test_heads_read_register_0_and_the_decoder_reads_the_puzzle(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    model = random_model(tiny)
    h = advance(model, puzzle).h
    first, others = h.clone(), h.clone()
    first[:, : tiny.num_registers] += 1
    others[:, 1:] += 1
    assert same(model.read_heads(h), model.read_heads(others))
    assert not same(model.read_heads(h), model.read_heads(first))
    assert torch.equal(model.decode(h), model.decode(first))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_reads_what_the_heads_and_the_decoder_say(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, dtype: torch.dtype
) -> None:
    model = random_model(tiny, dtype).cast_weights()
    state = advance(model, puzzle)
    made = torch.arange(ROWS)
    numbers, answers = model.read(state, made, torch.full_like(made, ROWS - 1), torch.ones(ROWS))
    heads = model.read_heads(state.h)
    torch.testing.assert_close(numbers[:, :2], torch.stack(heads, dim=1).sigmoid(), rtol=1e-6, atol=0)
    assert numbers[:, 2].tolist() == [1] * ROWS
    assert numbers[:, 3].tolist() == [0] * (ROWS - 1) + [1]
    assert torch.equal(answers, model.decode(state.h).argmax(-1).to(torch.uint8))


@mixings
def test_two_networks_cost_one_core_more_than_a_shared_one(tiny: ModelConfig, mixing: Mixing) -> None:
    shared = GRAM(tiny.model_copy(update={"mixing": mixing}))
    two = GRAM(tiny.model_copy(update={"mixing": mixing, "shared_core": False}))
    assert shared.f_low is shared.f_high
    assert count(two) == count(shared) + count(shared.f_low)


def test_two_networks_compute_what_a_shared_one_does_only_with_its_weights_in_both(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build
) -> None:
    shared = random_model(tiny)
    two = random_model(tiny.model_copy(update={"shared_core": False}))
    assert not same(advance(shared, puzzle), advance(two, puzzle))
    two.load_state_dict(shared.state_dict())
    assert same(advance(shared, puzzle), advance(two, puzzle))


def test_a_flat_model_applies_its_network_to_h_alone(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    model = random_model(tiny.model_copy(update={"flat": True, "low_steps": 2}))
    state, e_x = model.initial_state(len(puzzle)), model.encode(puzzle)
    expected = state.h
    for _ in range(3):
        expected = model.f_high(expected + e_x)
    assert same(model.propose(state, e_x), State(expected, state.l))


def test_casting_the_weights_once_changes_no_bit(tiny: ModelConfig, puzzle: Tensor, random_model: Build) -> None:
    model = random_model(tiny, torch.bfloat16)
    state = advance(model, puzzle)
    heads, logits = model.read_heads(state.h), model.decode(state.h)
    assert state.h.dtype == state.l.dtype == torch.bfloat16
    model.cast_weights()
    assert model.matrices["f_low.mlps.0.down"].weight.dtype == torch.bfloat16
    again = advance(model, puzzle)
    assert same(state, again)
    assert same(heads, model.read_heads(again.h))
    assert torch.equal(logits, model.decode(again.h))


@pytest.fixture
def use_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Forces Triton, or PyTorch, from now on."""

    def force(which: str) -> None:
        monkeypatch.setenv("GRAM_KERNELS", which)
        forget_choices()

    yield force
    monkeypatch.undo()
    forget_choices()


@guidances
@mixings
def test_with_the_triton_kernels_a_step_shows_what_it_shows_without(
    tiny: ModelConfig,
    puzzle: Tensor,
    random_model: Build,
    use_kernels: Callable[[str], None],
    guidance: GuidanceKind,
    mixing: Mixing,
) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_model(tiny.model_copy(update={"guidance": guidance, "mixing": mixing})).to(device)
    states, shown = [], []
    for which in ("torch", "triton"):
        use_kernels(which)
        assert uses_triton(model.initial_h) is (which == "triton")
        states.append(advance(model, puzzle.to(device)))
        made = torch.arange(ROWS, device=device)
        shown.append(model.read(states[-1], made, torch.full_like(made, 3), torch.full((ROWS,), 0.5, device=device)))
    for reference, fused in zip(*states, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-4, atol=1e-4)
    (numbers, answers), (fused_numbers, fused_answers) = shown
    torch.testing.assert_close(fused_numbers, numbers, rtol=1e-4, atol=1e-4)
    assert torch.equal(fused_answers, answers)


def test_the_triton_kernels_add_the_same_noise(
    tiny: ModelConfig, puzzle: Tensor, random_model: Build, use_kernels: Callable[[str], None]
) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_model(tiny.model_copy(update={"transitions": 1})).to(device)
    noise = []
    for which in ("torch", "triton"):
        use_kernels(which)
        noise.append(advance(model, puzzle.to(device)).h - advance(model, puzzle.to(device), temperature=0.0).h)
    assert noise[0].abs().mean() > 1e-2
    torch.testing.assert_close(noise[1], noise[0], rtol=1e-4, atol=1e-5)


@mixings
def test_compiled_for_training_the_layers_are_one_graph(tiny: ModelConfig, random_model: Build, mixing: Mixing) -> None:
    model = random_model(tiny.model_copy(update={"mixing": mixing}))
    x = torch.randn(ROWS, tiny.length, tiny.dim)
    for layer in (model.f_low, model.prior):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)
