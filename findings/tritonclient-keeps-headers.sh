#!/usr/bin/env bash
# Package:   tritonclient[http] 2.73.0 (Python 3.11).
# Behaviour: infer(..., headers=H) writes its own headers into the caller's dict H, and leaves them there. The next call with H sends
#            those of the call before where it has none of its own.
# Expected:  a dict that is as it was, as httpx and requests leave it; each request has the headers of its own body.
# Seen:      with one dict of headers, a call with gzip and a binary tensor, then one with a plain JSON body: the second request says
#            Content-Encoding: gzip, though its body begins with "{", and has the first one's Inference-Header-Content-Length (143),
#            which is not the length of anything in it. A server that believes the headers can't read the body.
#            2026-11-28, Linux on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check 'tritonclient[http]==2.73.0'

"$folder/venv/bin/python" - <<'EOF'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

received = []
NAMES = ("Content-Encoding", "Inference-Header-Content-Length")


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received.append(({name: self.headers[name] for name in NAMES}, body))
        answer = b'{"model_name": "m", "outputs": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = InferenceServerClient(f"127.0.0.1:{server.server_port}")


def tensor(binary):
    puzzle = InferInput("puzzle", [1, 81], "INT64")
    puzzle.set_data_from_numpy(np.arange(81, dtype=np.int64)[None] % 10, binary_data=binary)
    return [puzzle]


mine = {"X-Request-ID": "1"}
client.infer("m", tensor(True), headers=mine, request_compression_algorithm="gzip")
print("the dict after the first call:", mine)
client.infer("m", tensor(False), headers=mine)
for headers, body in received:
    print(headers, "body begins with", body[:2])
client.close()
server.shutdown()
(first, packed), (second, plain) = received
assert packed[:2] == b"\x1f\x8b" and plain[:1] == b"{", "the bodies are others"
assert second == first and second["Content-Encoding"] == "gzip" and set(NAMES) < set(mine), "the behaviour has changed"
EOF
