"""Kill a run with SIGKILL at random moments, resume it, and compare with a whole run.

    python results/record/kills.py --benchmark synthetic_5x3 --strategy replay

Needs a system with SIGKILL. Prints where each kill struck and whether results, metrics
and model equal the uninterrupted run's, bit for bit; exit code 1 if they do not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARYING = ("seconds", "peak_rss_mb")
FILES = ("metrics.csv", "model.json", "model.safetensors")


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """Return the command line of the run."""
    names = ["--benchmark", options.benchmark, "--strategy", options.strategy]
    return [sys.executable, "-m", "avalanche_ad.cli", "run", *names, "--out", str(out)]


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--benchmark", default="synthetic_5x3")
    parser.add_argument("--strategy", default="replay")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        began = time.perf_counter()
        subprocess.run(command(options, whole), check=True, **quiet)
        lasts = time.perf_counter() - began
        print(f"uninterrupted: {lasts:.0f} s")
        kills = 0
        while kills < options.kills:
            # short enough that ten kills strike before the run is through
            delay = draw.uniform(0, lasts / 3)
            process = subprocess.Popen(command(options, broken), **quiet)
            try:
                process.wait(delay)
                print("the run was through before the kill")
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kills += 1
            log = broken.with_name("broken.partial") / "metrics.csv"
            lines = log.read_text().count("\n") if log.exists() else 0
            print(f"kill {kills} after {delay:.1f} s, {lines} lines of metrics there")
        subprocess.run(command(options, broken), check=True, **quiet)
        results = [
            json.loads((run / "results.json").read_text()) for run in (whole, broken)
        ]
        for result in results:
            for key in VARYING:
                result.pop(key)
        same = results[0] == results[1] and all(
            (whole / name).read_bytes() == (broken / name).read_bytes()
            for name in FILES
        )
    print("bit for bit the same" if same else "NOT the same")
    sys.exit(not same)


if __name__ == "__main__":
    main()
