#!/usr/bin/env bash
# Packages:  triton 3.6.0 (which torch 2.11 comes with), torch 2.13.0 (CPU), numpy 2.4.6 and 2.3.5.
# Behaviour: under TRITON_INTERPRET=1 with numpy 2.4, a loop over range(n) fails if n is an argument of the kernel, not a constexpr.
#            The interpreter keeps n as an array of one element, and numpy 2.4 no longer makes a Python number of such an array.
# Expected:  the same kernel runs as it does when compiled; nothing that triton's package says excludes numpy 2.4.
# Seen:      "only 0-dimensional arrays can be converted to Python scalars" with numpy 2.4.6; with 2.3.5, and with a constexpr bound,
#            the sum is right. triton 3.9.0 runs it with either.
#            2026-11-28, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat >"$folder/kernel.py" <<'EOF'
import sys

import numpy
import torch
import triton
import triton.language as tl


@triton.jit
def add_up(target, n):
    total = 0
    for i in range(n):
        total += i
    tl.store(target, total)


@triton.jit
def add_up_to_constant(target, n: tl.constexpr):
    total = 0
    for i in range(n):
        total += i
    tl.store(target, total)


def outcome(kernel):
    target = torch.zeros(1, dtype=torch.int32)
    try:
        kernel[(1,)](target, 5)
    except Exception as error:
        return str(error)
    return str(target.item())


seen = [outcome(add_up), outcome(add_up_to_constant)]
print(f"triton {triton.__version__}, numpy {numpy.__version__}: argument: {seen[0]}; constexpr: {seen[1]}")
fails = sys.argv[1] == "fails"
assert ("only 0-dimensional arrays" in seen[0]) is fails, "the loop over an argument has changed"
assert seen[1] == "10" and (fails or seen[0] == "10"), "the sums have changed"
EOF

try_with() { # triton, numpy, fails or works
  "$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 "triton==$1" "numpy==$2"
  TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/kernel.py" "$3"
}
try_with 3.6.0 2.4.6 fails
try_with 3.6.0 2.3.5 works
try_with 3.9.0 2.4.6 works
