#!/usr/bin/env bash
# Package:   torch 2.13.0 (CPU).
# Behaviour: torch.matmul(weight [n, m], x [B, m, d]) is one batched product without a copy, until `weight` requires a gradient.
#            Then it transposes and copies x, multiplies once, and copies the result back: also under torch.no_grad(),
#            where no gradient can be asked for. Expanding the weight to [B, n, m] avoids both copies.
# Expected:  under no_grad() the flag of a tensor changes nothing about what is computed.
# Seen:      the operators of the two calls, printed below: 1 bmm and no clone, against 1 mm and 2 clones.
#            2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Collects the names of the operators that copy or multiply."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (name := func.overloadpacket.__name__) in ("clone", "copy_", "mm", "bmm"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def operators(weight, x):
    with Operators() as seen:
        torch.matmul(weight, x)
    return seen.names


weight, x = torch.randn(24, 97), torch.randn(8, 97, 128)
parameter = torch.nn.Parameter(weight)
plain, graded, expanded = (operators(w, x) for w in (weight, parameter, parameter.expand(8, -1, -1)))
print("under no_grad():", "tensor", plain, "| parameter", graded, "| expanded parameter", expanded)
assert plain == expanded == ["bmm"], "the batched product has changed"
assert graded == ["clone", "mm", "clone"], "the folded product has changed"
EOF
