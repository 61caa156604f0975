"""Take the runs of a folder into one file, a line a run, which reads as the folders do.

    python results/record/pack.py RUNS_FOLDER …

Of a run nothing but its ``results.json`` is kept there: ``compare`` and ``report`` need
no more. Every line is read back and compared before the folders' files are removed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from avalanche_ad.experiments.results import RUNS, pack_runs


def main() -> None:
    """Pack every folder given."""
    for folder in map(Path, sys.argv[1:]):
        pack_runs(folder)
        lines = (folder / RUNS).read_text("utf-8").splitlines()
        packed = {run["run"]: run["results"] for run in map(json.loads, lines)}
        for path in sorted(folder.glob("*/results.json")):
            content = json.dumps(packed[path.parent.name], indent=1) + "\n"
            if content != path.read_text("utf-8"):
                raise SystemExit(f"{path}: its line differs, and it is kept")
            path.unlink()
        print(f"{folder}: {len(packed)} runs in {RUNS}")


if __name__ == "__main__":
    main()
