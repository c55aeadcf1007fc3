"""A model that can do nothing, quickly."""

import torch

from gram.models.config import ModelConfig
from gram.models.network import GRAM

CONFIG = ModelConfig(vocab_size=3, seq_len=4, dim=8, num_layers=1, mixer_dim=8, mlp_dim=8, guidance_dim=8, num_registers=1)


def tiny_model(dtype: torch.dtype = torch.float32) -> GRAM:
    return GRAM(CONFIG, dtype, posterior=False).cast_weights().requires_grad_(False)
