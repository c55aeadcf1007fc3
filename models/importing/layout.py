"""The sizes of an imported network and its task: from the shapes of the tensors, all_config.yaml, dataset.json and flags."""

import math
import re
from dataclasses import dataclass

from gram.models.config import CheckpointError, Family, ModelConfig
from gram.models.importing.source import ALL_CONFIG_FILE, Arch, Source
from gram.models.tasks import TASKS, Task

_FAMILIES: dict[str, Family] = {"TinyRecursiveReasoningModel_ACTV1": "TRM", "HierarchicalReasoningModel_ACTV1": "HRM"}
"""The families by the classes of their public code."""
_TRM_PREFIX = 16
"""`puzzle_emb_len` of a TRM whose configuration does not say it."""
_SHARED = ("sudoku-", "maze-")
"""Tasks whose symbols are those of the public data sets, less 1."""
_HALT_THRESHOLD = 0.95
"""Their training halts at 0.5, where they were never evaluated: it costs accuracy. This costs none, and nearly as few steps
(benchmarks/README.md, Halting and noise)."""
_CONSTANTS = {"rms_norm_eps": 1e-5, "rope_theta": 1e4}
_EMBEDDING, _PUZZLES = "embed_tokens.embedding_weight", "puzzle_emb.weights"
_MLP, _MIXER = "L_level.layers.0.mlp.down_proj.weight", "L_level.layers.0.mlp_t.down_proj.weight"


@dataclass(frozen=True)
class Layout:
    """All sizes of a checkpoint."""

    family: Family
    task: str
    checked: bool
    """Whether the task is a registered one."""
    vocab_size: int
    """With PAD, which is symbol 0 of theirs and none of ours."""
    seq_len: int
    prefix: int
    dim: int
    num_layers: int
    mlp_dim: int
    mixer_dim: int | None
    """None: attention."""
    puzzle_dim: int
    num_heads: int
    h_cycles: int
    l_cycles: int
    learned_positions: bool
    halts_by_difference: bool
    """HRM halts when q0 > q1; TRM, if it was not trained to continue, when q0 > 0."""
    max_steps: int

    def model(self) -> ModelConfig:
        """The configuration of our network. Raises pydantic's ValidationError."""
        over_positions = {} if self.mixer_dim is None else {"mixer_dim": self.mixer_dim, "mixer_norm": "positions"}
        return ModelConfig(
            vocab_size=self.vocab_size - 1,
            seq_len=self.seq_len,
            num_registers=self.prefix,
            dim=self.dim,
            num_layers=self.num_layers,
            mixing="attention" if self.mixer_dim is None else "swiglu",
            num_heads=self.num_heads,
            float32_rope=True,
            learned_positions=self.learned_positions,
            mlp_dim=self.mlp_dim,
            shared_core=self.family == "TRM",
            low_steps=self.l_cycles,
            transitions=self.h_cycles,
            supervision_steps=self.max_steps,
            halt_threshold=_HALT_THRESHOLD,
            guidance="none",
            **over_positions,
        )


def read_layout(source: Source, given: Arch, task: str | None) -> Layout:
    """Find all sizes. `given` and `task` are the user's, and precede the files. Raises CheckpointError."""
    try:
        return _Reader(source, given).layout(task)
    except CheckpointError as error:
        raise CheckpointError(f"{source.file}: {error}") from error


class _Reader:
    def __init__(self, source: Source, given: Arch) -> None:
        self._source = source
        self._shapes = {name: [*tensor.shape] for name, tensor in source.tensors.items()}
        self._arch = source.arch.model_copy(update=given.model_dump(exclude_unset=True))
        self._missing: list[str] = []

    def layout(self, task_name: str | None) -> Layout:
        vocab_size, dim = self._shape(_EMBEDDING)
        family = self._family()
        layers = self._layers(family)
        mixer = self._shape(_MIXER) if _MIXER in self._shapes else None
        self._compare(vocab_size=vocab_size, hidden_size=dim, l_layers=layers, mlp_t=mixer is not None)
        learned = self._learned(attention=mixer is None)
        puzzle_dim = self._puzzle_dim()
        prefix, seq_len, task, name = self._lengths(family, vocab_size, math.ceil(puzzle_dim / dim), mixer, task_name)
        arch = self._arch
        h_cycles = arch.h_cycles or self._needs("--h-cycles")
        l_cycles = arch.l_cycles or self._needs("--l-cycles")
        num_heads = arch.num_heads or (1 if mixer else self._needs("--num-heads"))
        if self._missing:
            raise CheckpointError(f"no {ALL_CONFIG_FILE} beside it says how it was made; give {', '.join(self._missing)}")
        if puzzle_dim > prefix * dim:
            raise CheckpointError(f"{_PUZZLES} has {puzzle_dim} numbers, which don't fit into {prefix} positions of {dim}")
        return Layout(
            family=family,
            task=name,
            checked=task is not None,
            vocab_size=vocab_size,
            seq_len=seq_len,
            prefix=prefix,
            dim=dim,
            num_layers=layers,
            mlp_dim=self._shape(_MLP)[1],
            mixer_dim=mixer[1] if mixer else None,
            puzzle_dim=puzzle_dim,
            num_heads=num_heads,
            h_cycles=h_cycles,
            l_cycles=l_cycles,
            learned_positions=learned,
            halts_by_difference=family == "HRM" or not arch.no_act_continue,
            max_steps=arch.halt_max_steps,
        )

    def _compare(self, **found: int) -> None:
        """Raise CheckpointError if the files beside the tensors are of another network, or of one that can't be served."""
        told = self._arch.model_dump()
        if self._source.data:
            told["vocab_size"] = self._source.data.vocab_size
        for what, size in found.items():
            if told[what] not in (None, size):
                field = Arch.model_fields[what].alias or what
                raise CheckpointError(f"{field} should be {told[what]}, but the tensors have {size}; are they of another run?")
        for what, served in _CONSTANTS.items():
            if told[what] != served:
                raise CheckpointError(f"arch.{what} is {told[what]:g}; only {served:g} can be served, the public code's value")

    def _puzzle_dim(self) -> int:
        """The numbers of the vector that all puzzles share."""
        ids, puzzle_dim = self._shape(_PUZZLES)
        if ids != 1:
            raise CheckpointError(
                f"{_PUZZLES} has {ids:,} rows, an embedding for each puzzle, as in checkpoints for ARC; only one with "
                "a single embedding for all puzzles can be served"
            )
        return puzzle_dim

    def _lengths(
        self, family: Family, vocab_size: int, needed: int, mixer: list[int] | None, task_name: str | None
    ) -> tuple[int, int, Task | None, str]:
        """The positions of the prefix and the cells, the registered task, if it is one, and its name.

        needed: the positions that the puzzle vector fills. Some tensors have the sum of both lengths.
        """
        length = mixer[0] if mixer else None
        prefix = self._prefix(family, needed)
        seq_len = self._arch.seq_len or (self._source.data.seq_len if self._source.data else None)
        if seq_len is None and length is not None and prefix is not None:
            seq_len = length - prefix
        task, name = find_task(task_name, vocab_size - 1, seq_len, self._source.data_name)
        seq_len = seq_len or (task.seq_len if task else self._needs("--seq-len"))
        if prefix is None:
            prefix = length - seq_len if length is not None else self._needs("--prefix")
        if length not in (None, prefix + seq_len) and not self._missing:
            raise CheckpointError(f"the tensors have {length} positions, not {prefix} of the prefix and {seq_len} cells")
        return prefix, seq_len, task, name

    def _shape(self, name: str) -> list[int]:
        """The shape of a matrix."""
        shape = self._shapes.get(name)
        if shape is None:
            raise CheckpointError(f"{name} is missing; only checkpoints of TRM's and HRM's public code can be imported")
        if len(shape) != 2 or not all(shape):
            raise CheckpointError(f"{name} has shape {shape}; it should be a matrix")
        return shape

    def _needs(self, flag: str) -> int:
        """Note that a flag is missing."""
        self._missing.append(flag)
        return 0

    def _family(self) -> Family:
        family: Family = "HRM" if any(name.startswith("H_level.") for name in self._shapes) else "TRM"
        if self._arch.name is not None:
            named = self._arch.name.rpartition("@")[2]
            if named not in _FAMILIES:
                raise CheckpointError(f"arch.name is {named}; only {' and '.join(_FAMILIES)} can be imported")
            if _FAMILIES[named] != family:
                raise CheckpointError(f"arch.name is {named}, but the tensors are of {family}; are they of another run?")
        return family

    def _layers(self, family: Family) -> int:
        found = {
            level: len({match[1] for name in self._shapes if (match := re.match(rf"{level}_level\.layers\.(\d+)\.", name))})
            for level in ("L", "H")
        }
        unequal = family == "HRM" and (found["H"] != found["L"] or self._arch.h_layers not in (None, found["H"]))
        if unequal:
            h_layers = found["H"] if found["H"] != found["L"] else self._arch.h_layers
            raise CheckpointError(f"H has {h_layers} layers and L has {found['L']}; only equal networks can be served")
        return found["L"]

    def _learned(self, *, attention: bool) -> bool:
        """Whether there are learned positions. With attention, only rotated ones can be served."""
        found = "embed_pos.embedding_weight" in self._shapes
        positions = "learned" if found else self._arch.pos_encodings
        if attention and positions not in (None, "rope"):
            raise CheckpointError(f"pos_encodings is {positions} with attention; only rope can be served there")
        return positions == "learned"

    def _prefix(self, family: Family, needed: int) -> int | None:
        """The positions in front of the cells; None if nothing says it."""
        if family == "HRM":
            return needed
        if self._arch.puzzle_emb_len is not None:
            return self._arch.puzzle_emb_len or needed
        return _TRM_PREFIX if self._source.described else None


def find_task(name: str | None, vocab_size: int, seq_len: int | None, data_name: str | None) -> tuple[Task | None, str]:
    """The registered task of a checkpoint, None for a task without code, and its name. Raises CheckpointError.

    seq_len: None if it is not known. data_name: what the training data was called.
    """
    if name is not None:
        task = TASKS.get(name)
        if task and (task.vocab_size != vocab_size or seq_len not in (None, task.seq_len)):
            sizes = f"{vocab_size} symbols" + (f" in {seq_len} cells" if seq_len else "")
            raise CheckpointError(
                f"it answers with {sizes}, {name} with {task.vocab_size} in {task.seq_len}; name another --task"
            )
        return task, name
    fitting = [
        task
        for task in TASKS.values()
        if task.name.startswith(_SHARED) and task.vocab_size == vocab_size and seq_len in (None, task.seq_len)
    ]
    fitting = [task for task in fitting if task.name in (data_name or "")] or fitting
    if len(fitting) == 1:
        return fitting[0], fitting[0].name
    if fitting:
        raise CheckpointError(f"its puzzles may be of {' or '.join(task.name for task in fitting)}; name one with --task")
    if data_name is None:
        raise CheckpointError(
            f"no task has {vocab_size} symbols" + (f" in {seq_len} cells" if seq_len else "") + "; name it: --task"
        )
    return None, data_name
