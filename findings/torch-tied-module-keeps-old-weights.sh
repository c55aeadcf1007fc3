#!/usr/bin/env bash
# Package:   torch 2.13.0.
# Behaviour: of a module that stands in a model under two names, as the one core of a recursive model for its low and its high
#            state, named_parameters() has the weights once and state_dict() twice. An average of the parameters, laid over a
#            state_dict that was saved beside it, therefore replaces one name only, and load_state_dict loads both in turn: the
#            weights that were not averaged win, or the averaged ones, by the order of the modules. Nothing is reported, as no key is
#            missing or unexpected.
# Expected:  an error or a warning where two names of one tensor carry different values.
# Seen:      the shared core had the last weights (1.0) and the head the averaged ones (0.5). load_state_dict returned no missing
#            and no unexpected keys. With the average laid over an empty dict and strict=False both had 0.5. 2026-11-28.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy

"$folder/venv/bin/python" - <<'EOF'
import torch
from torch import nn


class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.f_low = nn.Linear(1, 1, bias=False)
        self.f_high = self.f_low
        self.head = nn.Linear(1, 1, bias=False)


model = Recursive()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(1.0)
average = {name: torch.full_like(parameter, 0.5) for name, parameter in model.named_parameters()}
last = {name: weights.clone() for name, weights in model.state_dict().items()}  # as from a file
saved = {**last, **average}
print("averaged:", sorted(average), "| saved:", sorted(saved))
told = model.load_state_dict(saved)
core, head = model.f_low.weight.item(), model.head.weight.item()
print("core:", core, "| head:", head, "| told:", told)
assert (core, head) == (1.0, 0.5) and not told.missing_keys and not told.unexpected_keys, "the last name does not win any more"

model.load_state_dict(average, strict=False)
assert model.f_low.weight.item() == 0.5, "the average alone is not loaded"
EOF
