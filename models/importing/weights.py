"""The weights of an imported network: each tensor of the public code's, as ours."""

import torch
from torch import Tensor

from gram.models.config import CheckpointError
from gram.models.importing.layout import Layout
from gram.models.importing.source import Source

_POSITION_SCALE = 0.707106781
"""By which the public code multiplies the sum of an embedding and a learned position."""
_MOST_NAMED = 5


def convert(source: Source, layout: Layout) -> tuple[dict[str, Tensor], list[str]]:
    """Our weights by name, in float32, and what of theirs is left out, a sentence each. Raises CheckpointError."""
    take = _Tensors(source)
    dim, length, vocab_size = layout.dim, layout.prefix + layout.seq_len, layout.vocab_size
    symbols = take("embed_tokens.embedding_weight", vocab_size, dim)[1:]
    registers = torch.zeros(layout.prefix * dim)
    registers[: layout.puzzle_dim] = take("puzzle_emb.weights", 1, layout.puzzle_dim)[0]
    weights = {}
    if layout.learned_positions:
        symbols, registers = symbols * _POSITION_SCALE, registers * _POSITION_SCALE
        weights["position"] = take("embed_pos.embedding_weight", length, dim) * (_POSITION_SCALE * dim**0.5)
    q_weight, q_bias = take("q_head.weight", 2, dim), take("q_head.bias", 2)
    weights |= {
        "initial_h": take("H_init", dim).expand(length, dim),
        "initial_l": take("L_init", dim).expand(length, dim),
        "token_embedding": symbols,
        "register_embedding": registers.view(layout.prefix, dim),
        "decoder.weight": take("lm_head.weight", vocab_size, dim)[1:],
        "heads.weight": _heads(q_weight, layout),
        "heads.bias": _heads(q_bias, layout),
    }
    cores = {"L_level": "f_low"} if layout.family == "TRM" else {"L_level": "f_low", "H_level": "f_high"}
    for theirs, ours in cores.items():
        for layer in range(layout.num_layers):
            weights |= _layer(take, f"{theirs}.layers.{layer}", ours, layer, layout)
    take.refuse_others()
    left_out = ["row 0 of embed_tokens and of lm_head, which is PAD's"]
    if not layout.halts_by_difference:
        left_out.append("row 1 of q_head, which is not trained where no_ACT_continue is true")
    left_out += [f"{name}, which is beside the weights" for name in source.left_out]
    return weights, left_out


def _heads(q: Tensor, layout: Layout) -> Tensor:
    """Rows q0 and q1 of q_head -> those of our halt head and value head. q0 was trained to tell that the answer is right."""
    return torch.stack([q[0] - q[1] if layout.halts_by_difference else q[0], q[0]])


def _layer(take: "_Tensors", theirs: str, core: str, layer: int, layout: Layout) -> dict[str, Tensor]:
    dim, mlp_dim, mixer_dim, length = layout.dim, layout.mlp_dim, layout.mixer_dim, layout.prefix + layout.seq_len
    mixer, mlp = f"{core}.mixers.{layer}", f"{core}.mlps.{layer}"
    weights = {
        f"{mlp}.gate_up.weight": take(f"{theirs}.mlp.gate_up_proj.weight", 2 * mlp_dim, dim),
        f"{mlp}.down.weight": take(f"{theirs}.mlp.down_proj.weight", dim, mlp_dim),
    }
    if mixer_dim is None:
        return weights | {
            f"{mixer}.qkv.weight": take(f"{theirs}.self_attn.qkv_proj.weight", 3 * dim, dim),
            f"{mixer}.out.weight": take(f"{theirs}.self_attn.o_proj.weight", dim, dim),
        }
    return weights | {
        f"{mixer}.swiglu.gate_up.weight": take(f"{theirs}.mlp_t.gate_up_proj.weight", 2 * mixer_dim, length),
        f"{mixer}.swiglu.down.weight": take(f"{theirs}.mlp_t.down_proj.weight", length, mixer_dim),
    }


class _Tensors:
    """The tensors of a source, each of which is taken once."""

    def __init__(self, source: Source) -> None:
        self._file = source.file
        self._left = dict(source.tensors)

    def __call__(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name and shape, in float32. Raises CheckpointError."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise CheckpointError(f"{self._file}: {name} is missing; the file is not a whole checkpoint of the public code")
        if tensor.shape != shape:
            raise CheckpointError(f"{self._file}: {name} has shape {[*tensor.shape]}, the configuration asks for {[*shape]}")
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise CheckpointError(f"{self._file}: {name} is of type {tensor.dtype}; weights are floating-point numbers")
        tensor = tensor.float()
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self._file}: {name} has values that are not finite; take a checkpoint from before that")
        return tensor

    def refuse_others(self) -> None:
        """Raise CheckpointError if any tensor was not taken."""
        if self._left:
            names = ", ".join(sorted(self._left)[:_MOST_NAMED]) + (", ..." if len(self._left) > _MOST_NAMED else "")
            raise CheckpointError(
                f"{self._file} has tensors that the public code's network has not, which can't be served: {names}"
            )
