"""What TRM's and HRM's public code computes, written plainly from its description, in float64: what imports are compared with.

That it is right is tested against what the public code itself computed: see reference/README.md.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Arch = Mapping[str, Any]
Tensors = Mapping[str, Tensor]


def public_steps(tensors: Tensors, arch: Arch, inputs: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Supervision steps in eval mode: the logits [n, S, V] and q [n, 2] after each. inputs: their tokens [n, S]."""
    w = {name.removeprefix("_orig_mod.").removeprefix("model.inner."): tensor.double() for name, tensor in tensors.items()}
    dim, dim_puzzle = w["H_init"].shape[0], w["puzzle_emb.weights"].shape[1]
    is_hrm = "Hierarchical" in arch["name"]
    prefix = (0 if is_hrm else arch["puzzle_emb_len"]) or -(dim_puzzle // -dim)
    puzzle = F.pad(w["puzzle_emb.weights"][:1], (0, prefix * dim - dim_puzzle)).view(1, prefix, dim)
    e = torch.cat([puzzle.expand(len(inputs), -1, -1), w["embed_tokens.embedding_weight"][inputs]], dim=1)
    if arch["pos_encodings"] == "learned":
        e = 0.707106781 * (e + w["embed_pos.embedding_weight"])
    e = e * dim**0.5
    high_level = "H_level" if is_hrm else "L_level"
    high, low = w["H_init"].expand_as(e), w["L_init"].expand_as(e)
    for _ in range(steps):
        for _ in range(arch["H_cycles"]):
            for _ in range(arch["L_cycles"]):
                low = core(w, "L_level", low + high + e, arch)
            high = core(w, high_level, high + low, arch)
        yield high[:, prefix:] @ w["lm_head.weight"].T, high[:, 0] @ w["q_head.weight"].T + w["q_head.bias"]


def core(w: Tensors, level: str, x: Tensor, arch: Arch) -> Tensor:
    """The layers of a level: [n, L, D] -> [n, L, D]."""
    for i in range(arch["L_layers"]):
        name = f"{level}.layers.{i}"
        if arch.get("mlp_t"):
            turned = x.transpose(1, 2)
            x = norm(turned + swiglu(w, f"{name}.mlp_t", turned)).transpose(1, 2)
        else:
            x = norm(x + attention(w, f"{name}.self_attn", x, arch["num_heads"]))
        x = norm(x + swiglu(w, f"{name}.mlp", x))
    return x


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def swiglu(w: Tensors, name: str, x: Tensor) -> Tensor:
    gate, up = (x @ w[f"{name}.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w[f"{name}.down_proj.weight"].T


def attention(w: Tensors, name: str, x: Tensor, heads: int) -> Tensor:
    rows, length, dim = x.shape
    qkv = (x @ w[f"{name}.qkv_proj.weight"].T).view(rows, length, 3 * heads, dim // heads).transpose(1, 2)
    query, key, value = qkv.chunk(3, dim=1)
    weights = (rotated(query) @ rotated(key).transpose(2, 3) * (dim // heads) ** -0.5).softmax(-1)
    mixed: Tensor = (weights @ value).transpose(1, 2).reshape(rows, length, dim)
    return mixed @ w[f"{name}.o_proj.weight"].T


def rotated(x: Tensor) -> Tensor:
    length, dim = x.shape[-2:]
    angle = torch.outer(torch.arange(length), 10000.0 ** -(torch.arange(0, dim, 2).double() / dim)).repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()
