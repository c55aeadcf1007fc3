#!/usr/bin/env bash
# Packages:  adam-atan2-pytorch 0.4.1, einops 0.8.2, torch 2.13.0 (CPU), numpy 2.4.6.
# Behaviour: the package has two AdamAtan2, a plain one and one of torch's "foreach" functions. They agree but for
#            `regen_reg_rate`, the pull back to the initial weights: the plain one multiplies it by the learning rate in each
#            step, the other does not. At a learning rate of 0.001 the other pulls 1,000 times as hard.
# Expected:  the two differ in speed alone. They do with the defaults and with `weight_decay`.
# Seen:      after 200 steps against a constant gradient, at a learning rate of 0.001 with regen_reg_rate=0.1, the weight was
#            -0.1975 with the plain one and -0.0100 with the other. With decoupled_wd=True both gave -0.0100.
#            (Adam-atan2 is the optimizer of the HRM paper.) 2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  adam-atan2-pytorch==0.4.1 einops==0.8.2 torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import torch
from adam_atan2_pytorch.adam_atan2 import AdamAtan2 as Plain
from adam_atan2_pytorch.foreach import AdamAtan2 as Foreach


def trained(optimizer, **options):
    weight = torch.nn.Parameter(torch.zeros(1))
    steps = optimizer([weight], lr=1e-3, **options)
    for _ in range(200):
        weight.grad = torch.ones(1)
        steps.step()
    return round(weight.item(), 4)


regeneration = {"regen_reg_rate": 0.1}
for options in ({}, {"weight_decay": 0.1}, regeneration, regeneration | {"decoupled_wd": True}):
    plain, foreach = (trained(optimizer, **options) for optimizer in (Plain, Foreach))
    print(f"{options}: plain {plain}, foreach {foreach}")
    expected = (-0.1975, -0.01) if options == regeneration else (plain, plain)
    assert (plain, foreach) == expected, "the behaviour has changed"
EOF
