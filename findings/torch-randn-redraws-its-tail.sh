#!/usr/bin/env bash
# Package:   torch 2.13.0 (CPU).
# Behaviour: how many normal numbers are asked for changes which ones come first. Fewer than 16 are made by another method than
#            16 or more; and where the count is no multiple of 16, the last 16 are drawn again.
# Expected:  as of torch.rand, and of NumPy's standard_normal: the first numbers of a longer draw are those of a shorter one.
# Seen:      of the first 16 numbers of randn(16), randn(15) repeats none, randn(20) 4, randn(31) 15 and randn(32) all.
#            rand repeats all. So the noise of a batch is not the noise of its first rows alone.
#            2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import torch


def repeated(draw, count):
    """How many of the first 16 numbers are in their places when `count` are drawn from the same seed."""
    long, short = (draw(n, generator=torch.Generator().manual_seed(1)) for n in (16, count))
    return int((long[:count] == short[:16]).sum())


counts = 15, 17, 20, 31, 32, 33
normal, uniform = ([repeated(draw, count) for count in counts] for draw in (torch.randn, torch.rand))
print("drawn:", *counts)
print("randn repeats of its first 16:", *normal)
print("rand repeats of its first 16:", *uniform)
assert normal == [0, 1, 4, 15, 16, 16], "randn has changed"
assert uniform == [15, 16, 16, 16, 16, 16], "rand has changed"
EOF
