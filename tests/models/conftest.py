from collections.abc import Callable

import pytest
import torch

from gram.models.config import ModelConfig
from gram.models.network import GRAM


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """A network for 8 queens that takes milliseconds."""
    return ModelConfig(
        vocab_size=3,
        seq_len=64,
        num_registers=2,
        dim=16,
        num_layers=1,
        mixer_dim=16,
        num_heads=2,
        mlp_dim=16,
        guidance_dim=16,
        low_steps=1,
        transitions=2,
        supervision_steps=3,
    )


@pytest.fixture(scope="session")
def random_model() -> Callable[..., GRAM]:
    """Builds a model, the same at every call, whose zero-initialised layers are drawn as well, as if it were trained."""

    def build(config: ModelConfig, dtype: torch.dtype = torch.float32, *, posterior: bool = True) -> GRAM:
        torch.manual_seed(0)
        model = GRAM(config, dtype, posterior=posterior).requires_grad_(False)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        return model

    return build
