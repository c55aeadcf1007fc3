#!/usr/bin/env bash
# Package:   torch 2.13.0 (CPU), whose float32 products MKL computes.
# Behaviour: of one product of equal rows with few columns, equal rows get unequal results, by their place in the matrix.
#            With 8 columns and rows of 129 numbers it is the row's address modulo 16 bytes that decides, so the results
#            repeat with period 4. With a single column it is the rows after the last full group of four that differ.
# Expected:  a row's result may depend on the shape of the product, but not on which row it is.
# Seen:      129 numbers, 8 columns: kinds 0 1 2 3 0 1 2 3. 128 numbers, 8 columns: one kind. 128 numbers, 1 column, 7 rows:
#            kinds 0 0 0 0 and then, with most seeds, others. Rows of 129 with 32 columns are all equal.
#            2026-11-27, AMD EPYC with AVX-512, one thread. Other kinds of processor run other kernels: where all rows are
#            equal, this says "not on this processor" and exits with 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6

grep -m 1 "model name" /proc/cpuinfo || true
"$folder/venv/bin/python" - <<'EOF'
import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def kinds(numbers, columns, rows, seed):
    """For each of equal rows, the first row with the same result, counted in kinds."""
    generator = torch.Generator().manual_seed(seed)
    row, weight = torch.randn(numbers, generator=generator), torch.randn(columns, numbers, generator=generator)
    results = [tuple(result) for result in F.linear(row.repeat(rows, 1), weight).tolist()]
    return [list(dict.fromkeys(results)).index(result) for result in results]


narrow, aligned, single, wide = (
    [kinds(*shape, seed) for seed in range(10)] for shape in ((129, 8, 8), (128, 8, 8), (128, 1, 7), (129, 32, 8))
)
for name, found in (("129 x 8", narrow), ("128 x 8", aligned), ("128 x 1", single), ("129 x 32", wide)):
    print(f"{name:>8}: kinds of result in", " | ".join("".join(map(str, kind)) for kind in found[:4]))
if not any(map(any, narrow + single)):
    print("not on this processor")
    raise SystemExit
assert all(kind == [0, 1, 2, 3] * 2 for kind in narrow), "the period of four has changed"
assert all(not any(kind[:4]) for kind in single) and any(any(kind) for kind in single), "the single column has changed"
assert not any(map(any, aligned + wide)), "aligned or wide products have changed"
EOF
