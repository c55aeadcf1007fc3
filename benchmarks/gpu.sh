#!/bin/bash
# All that needs a CUDA GPU, in one call of under ten minutes: what is marked `gpu`, the step in one program against Triton's other
# kernels, and gram bench.
# Usage, from the repository's root: benchmarks/gpu.sh [FOLDER], with PYTHON=... where python3 is not the one with torch.
# The results lie in FOLDER (gpu-results) when it ends; it fails if a test does.
set -uo pipefail
out=${1:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$out"
"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA GPU is to be found"' || exit 2
failed=0
tests="tests/kernels tests/models/test_fused.py tests/server/engine/test_graphs.py tests/server/engine/test_engine.py tests/server/engine/test_device.py"
# shellcheck disable=SC2086 # a list of words
timeout 230 "$python" -m pytest -q -ra $tests 2>&1 | tee "$out/tests.txt" || failed=1
timeout 100 "$python" -m benchmarks.gpu_kernels 2>"$out/kernels.log" | tee "$out/kernels.md" || failed=1
timeout 250 "$python" -m gram bench --json "$out/bench.json" 2>"$out/bench.log" | tee "$out/bench.md" || failed=1
exit $failed
