#!/usr/bin/env bash
# Package:   torch 2.13.0 (CPU).
# Behaviour: torch.manual_seed and torch.Generator take a seed of 64 bits, and initial_seed() gives all of it back, but on the
#            CPU the numbers depend on its lower 32 bits alone.
# Expected:  different seeds of the documented range give different numbers.
# Seen:      seeds 1 and 1 + 2**32 have different initial_seed()s and draw the same numbers; so do -1 and 2**32 - 1.
#            A seed made by a 64-bit hash (of a run and a rank, say) counts with half of its bits: among 100,000 such seeds
#            about one pair is expected to draw the same numbers. 2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import torch


def draws(seed):
    return torch.rand(1000, generator=torch.Generator().manual_seed(seed))


for one, other in ((1, 1 + 2**32), (1, 1 + 2**62), (-1, 2**32 - 1)):
    seeds = [torch.Generator().manual_seed(seed).initial_seed() for seed in (one, other)]
    same = torch.equal(draws(one), draws(other))
    print(f"seeds {one} and {other}: initial_seed() {seeds}, the same 1,000 numbers: {same}")
    assert seeds[0] != seeds[1] and same, "the behaviour has changed"
assert not torch.equal(draws(1), draws(2)), "the seed does not count at all"
EOF
