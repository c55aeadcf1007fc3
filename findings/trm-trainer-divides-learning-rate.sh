#!/usr/bin/env bash
# Packages:  tiny-recursive-model 0.0.15, adam-atan2-pytorch 0.4.1, accelerate 1.15.0, einops 0.8.2, ema-pytorch 0.8.3,
#            x-transformers 2.31.10, torch 2.13.0 (CPU), numpy 2.4.6.
# Behaviour: Trainer(learning_rate=...) gives the optimizer that rate divided by batch_size * max_recurrent_steps. The default
#            optimizer is AdamW, whose steps do not grow with the loss, so nothing makes up for it.
# Expected:  the rate that was asked for, as an optimizer passed in as `optim` keeps its own.
# Seen:      learning_rate=1e-3 came to 5.2e-6 with a batch of 16 and 12 steps, the defaults, and to 2.6e-6 with a batch of 32:
#            a larger batch gets smaller steps, and a rate taken from a paper is divided by 192.
#            2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  tiny-recursive-model==0.0.15 adam-atan2-pytorch==0.4.1 accelerate==1.15.0 einops==0.8.2 ema-pytorch==0.8.3 \
  x-transformers==2.31.10 torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import torch
from tiny_recursive_model import MLPMixer1D, TinyRecursiveModel, Trainer
from torch.utils.data import TensorDataset

model = TinyRecursiveModel(dim=16, num_tokens=5, network=MLPMixer1D(dim=16, depth=1, seq_len=16))
boards = torch.randint(0, 5, (64, 16))


def rate(**options):
    """The learning rate after the warm-up."""
    return Trainer(model, TensorDataset(boards, boards), cpu=True, **options).optim.param_groups[0]["initial_lr"]


asked = 1e-3
defaults, larger = rate(learning_rate=asked), rate(learning_rate=asked, batch_size=32)
own = rate(optim=torch.optim.AdamW(model.parameters(), lr=asked))
print(f"asked for {asked}: {defaults:.2e} by default, {larger:.2e} with a batch of 32, {own:.2e} with an optimizer passed in")
assert defaults == asked / (16 * 12) and larger == asked / (32 * 12) and own == asked, "the behaviour has changed"
EOF
