"""The training loop: stages of updates, an average of the weights, a progress bar, and a file to resume from."""

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gram.models.checkpoint import load_checkpoint, save_checkpoint, served_weights
from gram.models.config import CheckpointError
from gram.models.layers import Core
from gram.models.network import GRAM, Guidance, State
from gram.models.tasks import Task
from gram.models.training.carry import Carry, start
from gram.models.training.distributed import Peers
from gram.models.training.grid import see_neighbours
from gram.models.training.heads import fit_heads
from gram.models.training.objective import Losses, dtype_of, losses
from gram.models.training.recipe import ConfigError, HeadsStage, Stage, TrainingConfig
from gram.models.training.rollout import rollout

RESUME_FILE = "training.safetensors"
LOG_FOLDER = "logs"
"""TensorBoard's logs, in the checkpoint's folder."""
_LOG_EVERY = 10
_SAVE_EVERY = 250
_PROBE_EVERY = 250
_PROBE_PUZZLES = 64


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device | None = None,
    start: Path | None = None,
    compile: bool = False,
) -> bool:
    """Train a checkpoint in the folder: from its resume file, else from the weights of the checkpoint `start`, else anew.

    Returns whether this process wrote it: of several processes, the first one does.
    """
    trainer = Trainer.create(config, device)
    if compile:
        trainer.compile()
    if (folder / RESUME_FILE).exists():
        trainer.resume(folder)
    elif start:
        trainer.take_weights(start)
    if any(stage.start_share for stage in config.stages) and not trainer.started:
        raise ConfigError("this recipe goes back to the weights that it began with: name their checkpoint with --start")
    trainer.run(folder)
    if trainer.peers.first:
        model = trainer.averaged()
        fit_heads(model, config.source, config.sample, config.heads)
        save_checkpoint(folder, config.checkpoint, model)
    return trainer.peers.first


@dataclass
class Trainer:
    """The whole state of training between two updates. `save` and `resume` preserve it bit for bit."""

    config: TrainingConfig
    model: GRAM
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    carry: Carry
    rng: np.random.Generator
    peers: Peers
    started: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the checkpoint that the run began with, if it began with one."""
    update: int = 0

    @classmethod
    def create(cls, config: TrainingConfig, device: torch.device | None = None) -> "Trainer":
        """Make a trainer at update 0, by default on the CPU. Raises ConfigError if the batch can't be shared out."""
        device = device or torch.device("cpu")
        peers = Peers.join(device)
        if config.batch_size % peers.count:
            raise ConfigError(f"batch_size {config.batch_size} can't be shared out among {peers.count} processes")
        torch.manual_seed(config.seed)
        model = GRAM(config.model, dtype_of(config, device)).to(device)
        if config.sees_neighbours:
            see_neighbours(model)
        rng = np.random.default_rng(config.seed)
        if not peers.first:  # the same weights, but other pairs and noise
            torch.manual_seed(hash((config.seed, peers.rank)))
            rng = np.random.default_rng((config.seed, peers.rank))
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        for parameter in model.parameters():  # the moments exist from the start, so that a resume finds them
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        average = {name: t.detach().clone() for name, t in model.named_parameters()}
        carry = start(model, config, config.batch_size // peers.count, rng)
        return cls(config, model, average, optimizer, carry, rng, peers)

    def take_weights(self, folder: Path) -> None:
        """Begin with the weights of a checkpoint. Raises ConfigError if they don't fit.

        A checkpoint has no posterior. It begins as the prior, blind to the target, so that the KL begins at 0; without guidance
        there, both are as in a new model. The numbers of steps and transitions may differ: no weight depends on them.
        """
        try:
            weights = served_weights(load_checkpoint(folder, self.model.initial_h.device, torch.float32))
            self.started = {name: weights[name].clone() for name in self.average.keys() & weights.keys()}
            if self.config.model.guidance != "none" and "prior.log_sigma_bias" in weights:
                for name, own in self.model.posterior.state_dict().items():
                    prior = weights[f"prior.{name}"]
                    weights[f"posterior.{name}"] = torch.zeros_like(own)
                    weights[f"posterior.{name}"][..., : prior.shape[-1]] = prior
            self.model.load_state_dict(weights, strict=False)
        except (CheckpointError, KeyError, RuntimeError) as error:
            raise ConfigError(f"can't begin with {folder}: {error}") from error
        self.average |= {name: weights[name].clone() for name in self.average.keys() & weights.keys()}
        self.carry = start(self.model, self.config, len(self.carry.step), self.rng)

    def compile(self) -> None:
        """Fuse the elementwise work between the matrix products with torch.compile."""
        for module in self.model.children():
            if isinstance(module, (Core, Guidance)):
                module.compile(dynamic=False)

    def run(self, folder: Path) -> None:
        """Train to the end of the last stage, and save to the folder regularly and at the end."""
        task = self.config.source
        prior_accuracy = 0.0
        log = SummaryWriter(folder / LOG_FOLDER, purge_step=self.update) if self.peers.first else None
        with tqdm(total=self.config.updates, initial=self.update, unit="update", smoothing=0.05, disable=not log) as bar:
            while self.update < self.config.updates:
                stage, position = self._stage()
                result = self._step(task, stage, position)
                if log and (self.update % _PROBE_EVERY == 0 or self.update == self.config.updates):
                    prior_accuracy = self.prior_accuracy(task)
                    log.add_scalar("prior_accuracy", prior_accuracy, self.update)
                bar.set_description(stage.name, refresh=False)
                bar.set_postfix(
                    loss=f"{result.cross_entropy:.4f}",
                    kl=f"{result.kl:.3f}",
                    halt=f"{result.halt:.3f}",
                    prior_accuracy=f"{prior_accuracy:.1%}",
                    refresh=False,
                )
                bar.update()
                if log and self.update % _LOG_EVERY == 0:
                    log.add_scalar("lr", learning_rate(stage, position), self.update)
                    for name in ("cross_entropy", "kl", "halt"):
                        log.add_scalar(name, float(getattr(result, name)), self.update)
                if self.update % _SAVE_EVERY == 0:
                    self.save(folder)
        self.save(folder)
        if log:
            log.close()

    def _stage(self) -> tuple[Stage, int]:
        """The stage of the next update, and the update's position in it."""
        position = self.update
        for stage in self.config.stages:
            if position < stage.updates:
                return stage, position
            position -= stage.updates
        raise ValueError("training is complete")

    def _step(self, task: Task, stage: Stage, position: int) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(stage, position)
        result = losses(self.model, task, self.carry, stage, self.config, self.rng)
        self.optimizer.zero_grad()
        result.total.backward()  # type: ignore[no-untyped-call]
        self.peers.average(p.grad for p in self.model.parameters() if p.grad is not None)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.update += 1
        decay = min(stage.ema, (1 + self.update) / (10 + self.update))
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        get_ema_multi_avg_fn(decay)([self.average[name] for name in names], parameters, None)  # type: ignore[no-untyped-call]
        if position + 1 == stage.updates and stage.start_share:
            self._go_back(stage.start_share)
        return result

    def _go_back(self, share: float) -> None:
        """Interpolate from the averaged weights to those that the run began with (WiSE-FT, Wortsman et al. 2022)."""
        for name, began in self.started.items():
            self.average[name].lerp_(began, share)
        self.model.load_state_dict(self.average, strict=False)

    def averaged(self) -> GRAM:
        """A copy of the model with the averaged weights, in the dtype of training. It draws nothing at random."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average, strict=False)  # only the parameters: z_0 is not averaged
        return model.eval().requires_grad_(False)

    def prior_accuracy(self, task: Task) -> float:
        """The share of valid answers under the prior: one trajectory of N_sup steps for each of a few training puzzles."""
        puzzles, _ = self.config.sample(np.random.default_rng(0), _PROBE_PUZZLES)
        model = self.averaged()
        h = rollout(model, torch.from_numpy(puzzles), self.config.model.supervision_steps, seed=0)[-1]
        answers = model.decode(h).argmax(-1).cpu().numpy()
        return float(np.mean([task.check(p, a) for p, a in zip(puzzles, answers, strict=True)]))

    def save(self, folder: Path) -> None:
        """Write the resume file. The old one stays until the new one is whole. All processes of a run call this together."""
        gather = self.peers.gather
        carry = self.carry
        shared = {"carry.h": carry.state.h, "carry.l": carry.state.l}
        shared |= {f"carry.{name}": getattr(carry, name) for name in ("puzzle", "target", "step", "ambiguous")}
        device = carry.state.h.device
        shared |= {"torch_rng": _torch_rng(device)[None], "numpy_rng": _as_bytes(self.rng)[None]}
        tensors = {name: gather(tensor.to(device)) for name, tensor in shared.items()}
        if not self.peers.first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        tensors |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"started.{k}": v for k, v in self.started.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        meta = {"update": self.update, "processes": self.peers.count, "config": self.config.model_dump(mode="json")}
        partial = folder / (RESUME_FILE + ".partial")
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, partial, {"training": json.dumps(meta)})
        partial.replace(folder / RESUME_FILE)

    def resume(self, folder: Path) -> None:
        """Continue from the folder's resume file. Raises ConfigError if it belongs to another recipe.

        The recipe may have changed in stages that the file has not reached, in the fit of the heads and in the dtype.
        """
        path = folder / RESUME_FILE
        with safe_open(path, framework="pt") as file:
            meta: dict[str, Any] = json.loads(file.metadata()["training"])
            if _past(TrainingConfig.model_validate(meta["config"]), meta["update"]) != _past(self.config, meta["update"]):
                raise ConfigError(
                    f"{path} was written by another recipe; use another folder, or remove the file to start again"
                )
            if meta["processes"] != self.peers.count:
                raise ConfigError(f"{path} was written by {meta['processes']} processes; resume it with the same number")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        device = self.model.initial_h.device
        self.average = {name: tensor.to(device) for name, tensor in part("average.").items()}
        self.started = {name: tensor.to(device) for name, tensor in part("started.").items()}
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            i: {k: tensors[f"optimizer.{i}.{k}"] for k in moments} for i, moments in optimizer["state"].items()
        }
        self.optimizer.load_state_dict(optimizer)
        own = {
            name: self.peers.part(tensor) for name, tensor in tensors.items() if name.startswith(("carry.", "torch_", "numpy_"))
        }
        self.carry = Carry(
            State(*(own[name].to(device, self.model.dtype) for name in ("carry.h", "carry.l"))),
            own["carry.puzzle"],
            own["carry.target"],
            own["carry.step"],
            own["carry.ambiguous"],
        )
        self.rng.bit_generator.state = json.loads(own["numpy_rng"].numpy().tobytes())
        _set_torch_rng(device, own["torch_rng"][0])
        self.update = meta["update"]


def _torch_rng(device: torch.device) -> Tensor:
    """The state of the generator that draws the noise, as bytes."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_torch_rng(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _as_bytes(rng: np.random.Generator) -> Tensor:
    """The generator's state as JSON, padded to the same length in all processes."""
    return torch.tensor(list(json.dumps(rng.bit_generator.state).encode().ljust(512)), dtype=torch.uint8)


def _past(config: TrainingConfig, update: int) -> TrainingConfig:
    """The part of a recipe that must not change after `update` updates.

    Stages to come are no part of it, nor what only the checkpoint's config says, nor the dtype, which the machine may choose.
    """
    begins = np.cumsum([0] + [stage.updates for stage in config.stages[:-1]])
    stages = [stage for stage, begin in zip(config.stages, begins, strict=True) if begin < max(1, update)]
    return config.model_copy(update={"stages": stages, "heads": HeadsStage(), "generates": False, "dtype": "auto"})


def learning_rate(stage: Stage, position: int) -> float:
    """The learning rate: a linear warm-up, then a cosine from lr to lr * final_lr at the end of the stage."""
    if position < stage.warmup:
        return stage.lr * (position + 1) / stage.warmup
    progress = (position - stage.warmup) / max(1, stage.updates - stage.warmup)
    return stage.lr * (stage.final_lr + (1 - stage.final_lr) * (1 + math.cos(math.pi * progress)) / 2)
