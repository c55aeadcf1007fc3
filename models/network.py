"""GRAM: a small network applied over and over to a latent state, with a stochastic high-level transition.

Source: Baek et al., "Generative Recursive Reasoning", arXiv:2605.19376. Shapes: B rows, N puzzle tokens,
L = registers + N latent positions, D channels, V symbols, T transitions per supervision step.
"""

from dataclasses import replace
from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gram.kernels.dispatch import guided_transition, perturb, readout
from gram.kernels.noise import HIGH_STREAM, LOW_STREAM, NoiseKey
from gram.kernels.readout import Readout
from gram.kernels.transition import gaussian
from gram.models.config import ModelConfig
from gram.models.layers import Core, Linear, Module, SwiGLU


class Gaussian(NamedTuple):
    """A diagonal normal over the stochastic guidance epsilon; both [B, L, D]."""

    mean: Tensor
    log_sigma: Tensor

    def sample(self) -> Tensor:
        """Draw a reparameterised sample, for training: gradients reach mean and log_sigma."""
        return self.mean + self.log_sigma.exp() * torch.randn_like(self.mean)


class State(NamedTuple):
    """The latent state z = (h, l), both [B, L, D]: the slow high-level half and the fast low-level half."""

    h: Tensor
    l: Tensor


class Heads(NamedTuple):
    """The logits that the heads read off h after a supervision step; both [B]."""

    halt: Tensor
    value: Tensor


class Sampler(Protocol):
    """Samples the end of a stochastic transition."""

    def transition(self, u: Tensor, key: NoiseKey) -> Tensor:
        """As Guidance.transition."""


class Step(Protocol):
    """Makes the step of `GRAM.advance`, each row by itself."""

    def __call__(self, state: State, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> State:
        """As GRAM.advance."""


class Guidance(nn.Module):
    """mu and sigma of a Gaussian over epsilon: SwiGLU heads whose last layers start at zero (Sec. 2.1).

    The prior p(eps | u) reads u; the posterior q(eps | u, y) reads concat(u, e_y) (Sec. 2.2).
    """

    def __init__(self, config: ModelConfig, in_dim: int) -> None:
        super().__init__()
        self.config = config
        if config.guidance == "full":
            self.mean = SwiGLU(in_dim, config.guidance_dim, config.dim, zero=True)
        self.log_sigma = SwiGLU(in_dim, config.guidance_dim, config.dim, zero=True)
        self.log_sigma_bias = nn.Parameter(torch.full((config.dim,), config.log_sigma_init))

    def __call__(self, x: Tensor) -> Gaussian:
        result: Gaussian = super().__call__(x)
        return result

    def forward(self, x: Tensor) -> Gaussian:
        """x [B, L, in_dim] -> a Gaussian over [B, L, D]; log sigma is clamped to the configured range."""
        low, high = self.config.log_sigma_min, self.config.log_sigma_max
        return Gaussian(*gaussian(*self._heads(x), log_sigma_min=low, log_sigma_max=high))

    def transition(self, u: Tensor, key: NoiseKey) -> Tensor:
        """Sample h [B, L, D] from N(u + mu(u), (temperature sigma(u))^2 I), for inference.

        The Triton kernel holds neither mu nor sigma in memory. key: the rows' NoiseKey [B].
        """
        low, high = self.config.log_sigma_min, self.config.log_sigma_max
        return guided_transition(u, *self._heads(u), key, log_sigma_min=low, log_sigma_max=high).h

    def _heads(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor, Tensor]:
        """What kernels.transition needs of both heads: the hidden activations, and the weights and bias of the last layers."""
        log_sigma = self.log_sigma.hidden(x)
        full = self.config.guidance == "full"
        mean, weight = (self.mean.hidden(x), self.mean.down.weight) if full else (None, None)
        return mean, log_sigma, weight, self.log_sigma.down.weight, self.log_sigma_bias


class GRAM(nn.Module):
    """The model of Sec. 2.1 (Eq. 1-9): encoder, recursive core, stochastic guidance, decoder, halt head and LPRM.

    `posterior=False` leaves out the recognition network, which only training needs.
    """

    initial_h: Tensor
    initial_l: Tensor

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32, *, posterior: bool = True) -> None:
        """`dtype`: of the activations. The weights are float32 until `cast_weights`."""
        super().__init__()
        self.config = config
        self.dtype = dtype
        dim = config.dim
        # z_0 is drawn once, when the model is created, and belongs to the checkpoint.
        self.register_buffer("initial_h", torch.randn(config.length, dim))
        self.register_buffer("initial_l", torch.randn(config.length, dim))
        self.token_embedding = nn.Parameter(torch.randn(config.vocab_size, dim) * dim**-0.5)
        self.register_embedding = nn.Parameter(torch.randn(config.num_registers, dim) * dim**-0.5)
        if config.learned_positions:
            self.position = nn.Parameter(torch.randn(config.length, dim))
        self.f_low: Module = Core(config)
        self.f_high: Module = self.f_low if config.shared_core else Core(config)
        self.decoder = Linear(dim, config.vocab_size)
        self.heads = Linear(dim, 2, bias=True, zero=True)
        self.packed_prior: Sampler | None = None
        self.native: Step | None = None
        if config.guidance != "none":
            self.prior = Guidance(config, dim)
            if posterior:
                self.target_embedding = nn.Parameter(torch.randn(config.vocab_size, dim) * dim**-0.5)
                self.posterior = Guidance(config, 2 * dim)

    @property
    def sampler(self) -> Sampler:
        """What samples a stochastic transition: the prior."""
        return self.packed_prior or self.prior

    @property
    def matrices(self) -> dict[str, Linear]:
        """The layers that compute in `dtype` when the model is served, by name: all linear ones but the heads."""
        return {
            name: module
            for name, module in self.named_modules(remove_duplicate=False)
            if isinstance(module, Linear) and module is not self.heads
        }

    def cast_weights(self) -> Self:
        """Cast the matrices to `dtype` for serving. Embeddings, z_0 and heads stay in float32, as in training."""
        for matrix in self.matrices.values():
            matrix.to(self.dtype)
        return self

    def encode(self, puzzle: Tensor) -> Tensor:
        """e_x = encode(x): tokens [B, N] -> [B, L, D]. It depends on the puzzle alone, so trajectories share it."""
        e_x = self._embed(puzzle, self.token_embedding)
        return (e_x + self.position if self.config.learned_positions else e_x).to(self.dtype)

    def _embed(self, tokens: Tensor, table: Tensor) -> Tensor:
        """Embeddings scaled by sqrt(D), those of the registers in front: [B, N] -> [B, L, D]."""
        registers = self.register_embedding.expand(tokens.shape[0], -1, -1)
        scale: float = self.config.dim**0.5
        return torch.cat([registers, F.embedding(tokens, table)], dim=1) * scale

    def initial_state(self, rows: int) -> State:
        """z_0, repeated for each row."""
        return State(
            self.initial_h.to(self.dtype).expand(rows, -1, -1).clone(),
            self.initial_l.to(self.dtype).expand(rows, -1, -1).clone(),
        )

    def propose(self, state: State, e_x: Tensor) -> State:
        """The deterministic part of a transition (Sec. 2.1): K_low times l <- f_L(l, h + e_x), then u = f_H(h, l).

        Returns the state with u in the place of h. A flat model applies its only network to h alone, K_low + 1 times.
        """
        h, low = state
        if self.config.flat:
            for _ in range(self.config.low_steps + 1):
                h = self.f_high(h + e_x)
            return State(h, low)
        injection = h + e_x
        for _ in range(self.config.low_steps):
            low = self.f_low(low + injection)
        return State(self.f_high(h + low), low)

    def read_posterior(self, u: Tensor, target: Tensor) -> Gaussian:
        """q(eps | u, y) (Sec. 2.2), for training: u [B, L, D], target tokens [B, N]."""
        e_y = self._embed(target, self.target_embedding).to(u.dtype)
        return self.posterior(torch.cat([u, e_y], dim=-1))

    def supervision_step(self, state: State, e_x: Tensor, key: NoiseKey) -> State:
        """T transitions under the prior, h <- u + eps with eps ~ N(mu(u), (temperature sigma(u))^2 I): the unit of serving.

        state, e_x: [B, L, D]. key: the rows' NoiseKey [B], its transition the number made before this step. The noise depends
        on the key alone, so a row's future depends on nothing but the row.
        """
        for t in range(self.config.transitions):
            u, low = self.propose(state, e_x)
            if self.config.guidance == "none":
                state = State(u, low)
                continue
            state = State(self.sampler.transition(u, replace(key, transition=key.transition + t)), low)
        return state

    def perturb(self, state: State, key: NoiseKey, sigmas: Tensor) -> State:
        """Add noise to the latents before a supervision step, as PTRM does (arXiv:2605.19943).

        sigmas: float32 [B, 2], of h and of l; a latent of sigma 0 stays as it is. key: the NoiseKey [B] of the step.
        """
        latents = []
        for z, sigma, stream in zip(state, sigmas.unbind(1), (HIGH_STREAM, LOW_STREAM), strict=True):
            # On a GPU the host does not wait to learn whether any row has noise: the kernel passes over those without.
            latents.append(perturb(z, key, sigma, stream=stream) if sigma.is_cuda or sigma.any() else z)
        return State(*latents)

    def advance(self, state: State, e_x: Tensor, key: NoiseKey, sigmas: Tensor) -> State:
        """`perturb`, then `supervision_step`: a step as it is served, by whatever `models.serving` has chosen."""
        if self.native:
            return self.native(state, e_x, key, sigmas)
        return self.supervision_step(self.perturb(state, key, sigmas), e_x, key)

    def decode(self, h: Tensor) -> Tensor:
        """Logits [B, N, V] from h's puzzle positions."""
        return self.decoder(h[:, self.config.num_registers :])

    def read_heads(self, h: Tensor) -> Heads:
        """The halt head (App. A.1) and the LPRM's value head (App. A.2, Eq. 14), linear on h at register 0."""
        halt, value = self.heads(h[:, 0].float()).unbind(-1)
        return Heads(halt, value)

    def read(self, state: State, steps: Tensor, max_steps: Tensor, halt_threshold: Tensor) -> Readout:
        """Read what a step shows of the rows, for inference; see kernels.readout."""
        assert self.heads.bias is not None
        return readout(
            *state,
            self.heads.weight,
            self.heads.bias,
            self.decoder.weight,
            steps,
            max_steps,
            halt_threshold,
            num_registers=self.config.num_registers,
        )
