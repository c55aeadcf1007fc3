#!/usr/bin/env bash
# Packages:  numba 0.68.1, numpy 2.4.6.
# Behaviour: in a compiled function, uint64 + 1 is an int64 for a scalar and a float64 for an array.
#            A shift to the right that follows copies the sign bit of the scalar, and is a type error for the array.
# Expected:  uint64 for both, as NumPy 2 gives for the same lines without the compiler.
# Seen:      2**63 + 1 was -9223372036854775807 (int64) as a scalar, 9.223372036854775808e18 (float64) as an array, and
#            (2**63 + 1) >> 60 was -8 where NumPy says 8. Hashes and counter-based random numbers are written in such lines.
#            2026-11-27, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check numba==0.68.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'EOF'
import numba
import numpy as np


def next_of(x):
    return x + 1


def top_bits(x):
    return (x + 1) >> 60


scalar, array = np.uint64(2**63), np.array([2**63], dtype=np.uint64)
compiled = numba.njit(next_of)
compiled(scalar)
compiled(array)
types = [str(signature.return_type) for signature in compiled.nopython_signatures]
shifted = numba.njit(top_bits)(scalar)
print("numba: x + 1 is", types, "and (x + 1) >> 60 is", shifted)
print("numpy: x + 1 is", [str(next_of(x).dtype) for x in (scalar, array)], "and (x + 1) >> 60 is", top_bits(scalar))
assert types[0] == "int64" and types[1].startswith("array(float64"), "the types have changed"
assert (shifted, top_bits(scalar)) == (-8, 8), "the shift has changed"
assert next_of(scalar).dtype == next_of(array).dtype == np.uint64, "NumPy has changed"
EOF
