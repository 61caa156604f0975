"""What the checks run is what the README says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_checks_end_with_the_readmes_command():
    script = (ROOT / ".ci/run").read_text()
    (line,) = [x for x in script.splitlines() if x.startswith("command=")]
    command = line.removeprefix('command="').removesuffix('"')
    assert command in (ROOT / "README.md").read_text().splitlines()
    assert script.splitlines()[-1] == 'exec bash -c "$command"'
    for check in ("ruff format --check", "ruff check", "mypy"):
        assert script.index(f".venv/bin/{check}") < script.index(line)


def test_the_fast_tests_touch_every_folder():
    slow = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow", re.MULTILINE)
    every = list((ROOT / "tests").rglob("test_*.py"))
    fast = {path.parent for path in every if not slow.search(path.read_text("utf-8"))}
    assert fast == {path.parent for path in every}
