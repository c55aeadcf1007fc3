"""Checkpoints of the public code's kind for tests: those that it wrote, and small random ones."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from gram.models.checkpoint import load_checkpoint
from gram.models.network import Heads
from gram.models.serving import prepare
from gram.models.trace import ROWS, trace

REFERENCE = Path(__file__).parent / "reference"
PREFIX = "_orig_mod.model.inner."


def unpacked(name: str, folder: Path) -> Path:
    """A folder of a checkpoint that the public code wrote, as it wrote it."""
    folder.mkdir()
    for path in (REFERENCE / name).iterdir():
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        elif path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def small_arch(**changes: Any) -> dict[str, Any]:
    """`arch` of a small TRM for 4x4 Sudoku, as in all_config.yaml; None removes a key."""
    arch = {
        "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        "H_cycles": 2,
        "L_cycles": 3,
        "H_layers": 0,
        "L_layers": 2,
        "hidden_size": 24,
        "num_heads": 3,
        "mlp_t": False,
        "pos_encodings": "rope",
        "puzzle_emb_len": 3,
        "puzzle_emb_ndim": 24,
        "halt_max_steps": 5,
        "forward_dtype": "float32",
        "no_ACT_continue": True,
        "loss": {"name": "losses@ACTLossHead"},
    }
    return {name: value for name, value in (arch | changes).items() if value is not None}


def small_hrm(**changes: Any) -> dict[str, Any]:
    """`arch` of a small HRM."""
    trm_only = {"mlp_t": None, "puzzle_emb_len": None, "no_ACT_continue": None, "forward_dtype": None}
    return small_arch(**{"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", "H_layers": 2} | trm_only | changes)


def random_tensors(arch: dict[str, Any], *, vocab_size: int = 6, seq_len: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a network, by the public code's names and in its types."""
    torch.manual_seed(seed)
    dim, ndim, levels = arch["hidden_size"], arch["puzzle_emb_ndim"], ["L_level"]
    prefix = arch.get("puzzle_emb_len") or -(ndim // -dim)
    if "Hierarchical" in arch["name"]:
        levels.append("H_level")
    shapes: dict[str, tuple[int, ...]] = {
        "H_init": (dim,),
        "L_init": (dim,),
        "embed_tokens.embedding_weight": (vocab_size, dim),
        "lm_head.weight": (vocab_size, dim),
        "q_head.weight": (2, dim),
        "q_head.bias": (2,),
        "puzzle_emb.weights": (1, ndim),
    }
    if arch["pos_encodings"] == "learned":
        shapes["embed_pos.embedding_weight"] = (prefix + seq_len, dim)
    for layer in (f"{level}.layers.{i}" for level in levels for i in range(arch["L_layers"])):
        widths = {f"{layer}.mlp": (40, dim)}
        if arch.get("mlp_t"):
            widths[f"{layer}.mlp_t"] = 28, prefix + seq_len
        else:
            shapes |= {f"{layer}.self_attn.qkv_proj.weight": (3 * dim, dim), f"{layer}.self_attn.o_proj.weight": (dim, dim)}
        for name, (hidden, width) in widths.items():
            shapes |= {f"{name}.gate_up_proj.weight": (2 * hidden, width), f"{name}.down_proj.weight": (width, hidden)}
    # At full scale, a recursion of random mixers doubles each rounding error at every application.
    scales = {name: (0.3 if "down_proj" in name else 1.0) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    return {PREFIX + name: torch.randn(shape) * scales[name] for name, shape in shapes.items()}


def write_public(folder: Path, arch: dict[str, Any], tensors: dict[str, Tensor], **all_config: Any) -> Path:
    """Write a checkpoint as the public code does: step_7 and all_config.yaml; with `data`, dataset.json, too."""
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "step_7")
    if data := all_config.pop("data", None):
        (folder / "dataset.json").write_text(json.dumps(data))
    (folder / "all_config.yaml").write_text(yaml.dump({"arch": arch, "lr": 1e-4, **all_config}))
    return folder


def steps(
    checkpoint: Path, symbols: Tensor, count: int, dtype: torch.dtype = torch.float32, *, served: bool = True
) -> Iterator[tuple[Tensor, Heads]]:
    """Supervision steps of a checkpoint on our symbols [n, N]: the logits [n, N, V] and the heads [n] after each.

    served: by the kernels that serve, else by PyTorch's own operations.
    """
    model = load_checkpoint(checkpoint, torch.device("cpu"), dtype)
    if served:
        prepare(model, ROWS)
    traced = trace(model, symbols, count)
    for logits, halt, value in zip(traced["logits"], traced["halt"], traced["value"], strict=True):
        yield logits, Heads(halt, value)
