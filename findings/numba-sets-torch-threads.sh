#!/usr/bin/env bash
# Packages:  numba 0.68.1, numpy 2.4.6, torch 2.13.0 (CPU).
# Behaviour: the first numba.get_num_threads() of a process changes torch's number of threads to numba's.
#            To answer, numba starts its pool of OpenMP threads, and their number is a setting that torch reads, too. With
#            numba's own pool (NUMBA_THREADING_LAYER=workqueue) torch keeps its number.
# Expected:  a function named get_... changes nothing, least of all in another package.
# Seen:      torch had 1 thread before the call and 3 after it. The second call changed nothing.
#            2026-11-27, Linux on x86-64. Reported upstream as numba's issue 9387.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check numba==0.68.1 numpy==2.4.6 torch==2.13.0

NUMBA_NUM_THREADS=3 NUMBA_THREADING_LAYER=omp "$folder/venv/bin/python" - <<'EOF'
import numba
import torch

torch.set_num_threads(1)
before = torch.get_num_threads()
answer = numba.get_num_threads()
first = torch.get_num_threads()
torch.set_num_threads(1)
numba.get_num_threads()
second = torch.get_num_threads()
print(f"torch's threads: {before}; after numba.get_num_threads() -> {answer}: {first}; set to 1 again, asked again: {second}")
assert (before, answer, first, second) == (1, 3, 3, 1), "the behaviour has changed"
EOF
