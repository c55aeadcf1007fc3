#!/usr/bin/env bash
# Package:   zstandard 0.25.0 (Python 3.11).
# Behaviour: zstandard.open(FILE).read() and stream_reader(...) give what is there of a file that was cut off inside a frame, and end
#            as if that were all. A text opened so just has fewer lines.
# Expected:  an EOFError, as gzip.open, bz2.open and lzma.open raise, or a ZstdError, as ZstdDecompressor().decompress does.
# Seen:      of 20,000 puzzles in a file cut to half its bytes, zstandard.open gives 9,591 lines, the last of 52 symbols of 81, and no
#            error; gzip raises EOFError. A decompressobj has `eof`, which is False at the end of such a file.
#            2026-11-28, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check zstandard==0.25.0

"$folder/venv/bin/python" - "$folder" <<'EOF'
import gzip
import random
import sys
from pathlib import Path

import zstandard

drawn = random.Random(0)
lines = "".join("".join(drawn.choice("123456789....................") for _ in range(81)) + "\n" for _ in range(20_000)).encode()
cut = {}
for name, pack in (("zst", zstandard.compress), ("gz", gzip.compress)):
    packed = pack(lines)
    cut[name] = Path(sys.argv[1], f"puzzles.{name}")
    cut[name].write_bytes(packed[: len(packed) // 2])

with zstandard.open(cut["zst"], "rt") as file:
    read = file.read().splitlines()
print(f"zstandard.open: {len(read):,} lines of 20,000, the last of {len(read[-1])} symbols of 81, and no error")

raised = None
try:
    gzip.open(cut["gz"], "rt").read()
except EOFError as error:
    raised = error
print(f"gzip.open: EOFError: {raised}")

frame = zstandard.ZstdDecompressor().decompressobj()
frame.decompress(cut["zst"].read_bytes())
print(f"decompressobj: eof is {frame.eof}")
assert 5_000 < len(read) < 15_000 and raised and not frame.eof, "the behaviour has changed"
EOF
