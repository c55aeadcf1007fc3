"""Compare the peak memory of a server after a request of many trajectories with that after a request of few."""

import argparse
from pathlib import Path

import httpx

from benchmarks.load import TASK, request
from benchmarks.servers import serving


def peak(k: int) -> tuple[float, float]:
    """Return the peak resident memory of the engine and the API process, in MiB, after one request of k trajectories."""
    with serving() as server:
        body = request(TASK.text(TASK.held_out[0]), k, seed=1)
        httpx.post(f"{server.url}/v1/solve", json=body, timeout=600).raise_for_status()
        return _peak_mib(server.engine().pid), _peak_mib(server.process.pid)


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Print both peaks and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--few", type=int, default=64, help="trajectories of the small request; default: %(default)s")
    parser.add_argument("--many", type=int, default=10_000, help="trajectories of the large request; default: %(default)s")
    options = parser.parse_args()
    (few_engine, few_api), (many_engine, many_api) = peak(options.few), peak(options.many)
    print(f"{'process':<10}{f'K = {options.few}':>14}{f'K = {options.many}':>14}{'ratio':>8}")
    print(f"{'engine':<10}{few_engine:>10.1f} MiB{many_engine:>10.1f} MiB{many_engine / few_engine:>8.3f}")
    print(f"{'API':<10}{few_api:>10.1f} MiB{many_api:>10.1f} MiB{many_api / few_api:>8.3f}")


if __name__ == "__main__":
    main()
