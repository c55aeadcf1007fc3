"""The look-up of the documents' commands accepts what exists and finds what does not."""

import pytest

from tests.docs import words


def look_up(line: str) -> None:
    for command in words.simple_commands(line):
        words.check(command)


@pytest.mark.parametrize(
    "line",
    [
        "gram serve --port 8001 --model a",
        ".venv/bin/gram key alice --requests-per-second 5 >> keys.toml   # the author's",
        "GRAM_KERNELS=torch gram solve 'g7 a4' --num-trajectories 20",
        "gram eval FOLDER",
        "torchrun --nproc-per-node 2 --no-python gram train ...",
        "python -m benchmarks.guidance models/zoo/sudoku-9x9 --puzzles 80",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[train]'",
        "docker compose --profile gpu up",
        "kubectl apply -k deploy/kubernetes",
        "kubectl apply -f deploy/kubernetes/inferenceservice.yaml",
    ],
)
def test_what_is_there_passes(line: str) -> None:
    look_up(line)


@pytest.mark.parametrize(
    "line",
    [
        "gram measure models/zoo/nqueens-8",
        "gram serve --ports 8001",
        "gram eval models/zoo/nqueens-8 && gram eval models/zoo/nqueens-9",
        "GRAM_KERNEL=torch gram solve 'g7 a4'",
        "torchrun --nproc-per-node 2 --no-python gram train --fast",
        "python -m benchmarks.tests",
        "python -m benchmarks.load",
        "python -m benchmarks.guidance models/zoo/sudoku-9x9 --sudokus 80",
        "pip install -e '.[training]'",
        "docker compose --profile tpu up",
        "kubectl apply -k deploy/helm",
        "kubectl apply -f deploy/kubernetes/inference.yaml",
        "make all",
    ],
)
def test_what_is_not_there_is_found(line: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        look_up(line)
