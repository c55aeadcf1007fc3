"""Residual addition and root-mean-square normalisation in one kernel, at the end of each sublayer of the core."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def add_rms_norm(x: Tensor, residual: Tensor) -> Tensor:
    """y = s / sqrt(mean(s^2) + eps) with s = x + residual, the mean over the last axis; without a learned scale, as in TRM.

    x, residual: [..., D], of one dtype. Returns the same shape and dtype.
    """
    return F.rms_norm(x + residual, (x.shape[-1],), eps=EPS)


def add_rms_norm_over_positions(x: Tensor, residual: Tensor) -> Tensor:
    """As `add_rms_norm`, with the mean over positions, separately for each channel: TRM's, behind its SwiGLU over positions.

    x, residual: [B, L, D], of one dtype. Returns the same shape and dtype.
    """
    total = (x + residual).float()
    return (total * torch.rsqrt(total.square().mean(1, keepdim=True) + EPS)).to(x.dtype)
