"""Measure what an early stop saves: supervision steps and seconds, with the same puzzles, seeds and trajectories."""

import argparse
import time

import torch

from gram.models.tasks import TASKS
from gram.server.engine.engine import Engine
from gram.server.local import Question, solve
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.collector import StopAt
from gram.server.sampling.options import Options
from gram.server.settings import EngineSettings

_STOPS: tuple[StopAt, ...] = ("all", "all_solutions", "first_valid")


def main() -> None:
    """Print steps, seconds and solutions found for each model and stop, of puzzles spread over the held-out set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stops", description=__doc__)
    parser.add_argument("--puzzles", type=int, default=40, help="puzzles of each task; default: %(default)s")
    parser.add_argument("--k", type=int, default=100, help="trajectories of each; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | stop | trajectories | steps | seconds | solutions found | puzzles with all |\n|" + " --- |" * 7)
    for folder in EngineSettings().model:
        if folder.name not in TASKS:
            continue
        task = TASKS[folder.name]
        engine = Engine(EngineSettings(model=[folder], device="cpu", threads=1))
        puzzles = task.held_out[:: max(1, len(task.held_out) // options.puzzles)][: options.puzzles]
        for stop in _STOPS:
            questions = [Question(i, task, puzzle, task.solvable(puzzle), i) for i, puzzle in enumerate(puzzles)]
            begun = time.thread_time()
            sampling = Options(num_trajectories=options.k, stop=stop)
            answers = [a for _, a in solve(engine, questions, sampling) if isinstance(a, SolveResponse)]
            seconds = time.thread_time() - begun
            found = sum(answer.distinct_valid or 0 for answer in answers)
            whole = sum(answer.distinct_valid == answer.solutions for answer in answers)
            run, steps = (sum(getattr(answer, name) for answer in answers) for name in ("trajectories", "steps_run"))
            print(
                f"| {task.name} | {stop} | {run} | {steps} | {seconds:.1f} | {found} | {whole} of {len(answers)} |", flush=True
            )


if __name__ == "__main__":
    main()
