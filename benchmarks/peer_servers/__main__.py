"""Start a peer, which serves until it is interrupted."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import get_args

from benchmarks.peer_servers import BENTO_OPTIONS, PeerOptions
from benchmarks.whole_requests import Depth

parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_servers", description=__doc__)
parser.add_argument("peer", choices=["litserve", "ray", "bentoml"])
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--depth", choices=get_args(Depth), required=True)
given = parser.parse_args()
options = PeerOptions(given.port, given.batch_size, given.depth)
match given.peer:
    case "litserve":
        from benchmarks.peer_servers.litserve import main

        main(options)
    case "ray":
        from benchmarks.peer_servers.rayserve import main

        main(options)
    case "bentoml":
        environment = os.environ | {BENTO_OPTIONS: json.dumps(asdict(options)), "BENTOML_DO_NOT_TRACK": "True"}
        command = ["bentoml", "serve", "benchmarks.peer_servers.bento:Solve", "--quiet", "--host", "127.0.0.1"]
        os.execve(sys.executable, [sys.executable, "-m", *command, "--port", str(options.port)], environment)
