"""Halting and noise at inference, of a TRM whose own evaluation knows neither: accuracy, steps and puzzles per second.

CHECKPOINT is what `gram import` made of a TRM or HRM, DATA its test set. The last part times the way in which such models are
evaluated elsewhere: PyTorch, whole batches, every step.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from gram.kernels.noise import NoiseKey
from gram.models.checkpoint import load_checkpoint
from gram.models.config import read_config
from gram.models.markdown import table
from gram.models.precision import multiplies_bfloat16
from gram.models.tasks import task_of
from gram.server.cli.cases import Cases
from gram.server.engine.engine import Engine
from gram.server.evaluation.measure import Measured, measure
from gram.server.inputs.files import PuzzleFile
from gram.server.sampling.options import Halt, LatentNoise, Noise, Options
from gram.server.settings import EngineSettings

STEPS = 16
THRESHOLDS: tuple[Halt, ...] = ("never", 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
SIGMAS = (0.1, 0.3, 1.0)
K = 20


def batches(folder: Path, cases: Cases, rows: int) -> float:
    """Puzzles per second of the public evaluation loops' way: batches of rows that all make every step, then are read."""
    cpu = torch.device("cpu")
    model = load_checkpoint(folder, cpu, torch.bfloat16 if multiplies_bfloat16(cpu) else torch.float32)
    puzzles = torch.from_numpy(np.stack([case.puzzle for case in cases]))
    begin = time.perf_counter()
    with torch.inference_mode():
        for batch in torch.split(puzzles, rows):
            zero = torch.zeros(len(batch), dtype=torch.int64)
            key = NoiseKey(zero, zero, zero, torch.zeros(len(batch)))
            state, e_x = model.initial_state(len(batch)), model.encode(batch)
            for _ in range(STEPS):
                state = model.supervision_step(state, e_x, key)
            model.decode(state.h).argmax(-1)
    return len(puzzles) / (time.perf_counter() - begin)


def row(name: str, measured: Measured) -> list[str]:
    """A line of a table: what share of the puzzles is right, and what it took."""
    shares = measured.exact if measured.exact.puzzles else measured.valid
    figures = [f"{figure / shares.puzzles:.1%}" for figure in (shares.single, shares.chosen, shares.any)]
    return [name, str(measured.options.num_trajectories), *figures, f"{measured.mean_steps:.2f}", f"{measured.rate:.1f}"]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.halting", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--puzzles", type=int, help="take only this many, spread evenly over DATA")
    parser.add_argument("--noise-puzzles", type=int, default=100, help="puzzles for the table of noise (default: 100)")
    args = parser.parse_args()
    task = task_of(read_config(args.checkpoint))
    engine = Engine(EngineSettings(model=[args.checkpoint], device="cpu", threads=1))
    file = PuzzleFile(args.data, [task])
    header = ["", "K", "single", "best score", "any of K", "steps", "puzzles/s"]

    def run(cases: Cases, name: str, k: int, halt: Halt, noise: Noise, *, symmetries: bool) -> list[str]:
        options = Options(num_trajectories=k, max_steps=STEPS, seed=0, halt=halt, noise=noise, symmetries=symmetries)
        return row(name, measure(engine, cases, len(cases), options, name))

    cases = Cases(file, args.puzzles, None)
    rows = [run(cases, f"halt {halt}", 1, halt, "none", symmetries=False) for halt in THRESHOLDS]
    print(f"\n{len(cases)} puzzles, one trajectory each, at most {STEPS} steps\n\n{table(header, rows)}\n", flush=True)

    few = Cases(file, args.noise_puzzles, None)
    rows = [
        run(few, "one trajectory", 1, "never", "none", symmetries=False),
        run(few, "symmetries", K, "never", "none", symmetries=True),
    ]
    for latent in ("low", "high"):
        for sigma in SIGMAS:
            noise = LatentNoise(sigma=sigma, latent=latent)
            rows.append(run(few, f"noise {sigma} on {latent}", K, "never", noise, symmetries=False))
    rows.append(run(few, "symmetries, noise 0.3 on low", K, "never", LatentNoise(), symmetries=True))
    print(f"\n{len(few)} puzzles, {STEPS} steps, no halting\n\n{table(header, rows)}\n", flush=True)

    best = ["batches of 64, every step, PyTorch", f"{batches(args.checkpoint, cases, 64):.1f}"]
    sides = [[f"gram, halt {halt}", run(cases, "", 1, halt, "none", symmetries=False)[-1]] for halt in ("never", 0.9, 0.95)]
    print(f"\n{table(['one thread', 'puzzles/s'], [best, *sides])}")


if __name__ == "__main__":
    main()
