"""Make Avalanche's patches from this project's files, and try them on a source tree.

    python upstream/patches.py make [NAME …]     # write NAME/NAME.patch
    python upstream/patches.py check [NAME …]    # apply, test, run the examples

Every folder beside this file that has a ``pull_request.toml`` is a pull request: its
``edits`` replace a piece of a file of Avalanche's, its ``files`` are taken from this
repository, with the ``imports`` renamed. A patch is the difference that they make to
the source distribution of avalanche-lib that pip downloads, or to ``--tree``: its
archive, or a folder of sources.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KEPT = ("avalanche", "tests", "examples")

RUNNER = """
import json, sys, unittest, warnings
warnings.simplefilter("ignore")
passed = []
class Result(unittest.TextTestResult):
    def addSuccess(self, test):
        super().addSuccess(test)
        passed.append(test.id())
suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:])
found = unittest.TextTestRunner(resultclass=Result, verbosity=0).run(suite)
failed = [test.id() for test, _ in found.failures + found.errors]
with open(sys.argv[1], "w") as file:
    json.dump({"passed": passed, "failed": failed, "skipped": len(found.skipped)}, file)
"""
"""Runs unit tests in a process of its own, and notes how each ended."""


class PatchError(Exception):
    """A pull request that cannot be made, or does not hold."""


@dataclass(frozen=True)
class PullRequest:
    """What one pull request changes, and what must hold with it.

    :param name: of its folder.
    :param title: of the pull request.
    :param suites: Avalanche's own test modules of what it touches.
    :param edits: file, text before and text after, in this order.
    :param files: target in Avalanche's tree, and source: in the pull request's folder,
        or from the root of this repository with a leading ``/``.
    :param imports: modules of this project, and what they are called there.
    :param example: target of a script that is run, where there is one.
    :param after: pull requests that it needs, in order.
    """

    name: str
    title: str
    suites: list[str]
    edits: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    example: str = ""
    after: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where it is described."""
        return HERE / self.name

    @property
    def patch(self) -> Path:
        """The patch as it is kept."""
        return self.folder / f"{self.name}.patch"

    @property
    def tests(self) -> list[str]:
        """Modules of the tests that it adds."""
        return [
            target.removesuffix(".py").replace("/", ".")
            for target in self.files
            if Path(target).name.startswith("test_")
        ]

    def text(self, source: str) -> str:
        """Return a file as Avalanche gets it."""
        path = ROOT / source[1:] if source.startswith("/") else self.folder / source
        text = path.read_text("utf-8")
        for ours, theirs in self.imports.items():
            text = text.replace(ours, theirs)
        # Avalanche is typed there, and is not where this project's types are checked
        text = re.sub(r"  # type: ignore\[[\w-]+\]$", "", text, flags=re.MULTILINE)
        if path.suffix == ".py" and "avalanche_ad" in text:
            line = next(one for one in text.splitlines() if "avalanche_ad" in one)
            raise PatchError(f"{path}: still names this project: {line.strip()}")
        return text

    def change(self, tree: Path) -> None:
        """Make the changes in a tree.

        :raises PatchError: where a text to replace is not there exactly once.
        """
        for edit in self.edits:
            path = tree / edit["file"]
            text = path.read_text("utf-8")
            if text.count(edit["before"]) != 1:
                raise PatchError(
                    f"{self.name}: {edit['file']} has {text.count(edit['before'])} "
                    f"times, not once:\n{edit['before']}"
                )
            path.write_text(text.replace(edit["before"], edit["after"]), "utf-8")
        for target, source in self.files.items():
            path = tree / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text(source), "utf-8")


def pull_requests(names: Iterable[str] = ()) -> list[PullRequest]:
    """Return all pull requests, or those named, ordered by name."""
    found = []
    for path in sorted(HERE.glob("*/pull_request.toml")):
        if not names or path.parent.name in names:
            values = tomllib.loads(path.read_text("utf-8"))
            found.append(PullRequest(path.parent.name, **values))
    return found


def downloaded(folder: Path) -> Path:
    """Return the archive of Avalanche's sources, of the version that is installed."""
    wanted = f"avalanche-lib=={version('avalanche-lib')}"
    options = ["--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PatchError(f"pip cannot download {wanted}:\n{done.stderr[-2000:]}")
    (archive,) = folder.glob("*.tar.gz")
    return archive


def unpack(source: Path, target: Path) -> Path:
    """Copy Avalanche's sources, with line ends of one character.

    :param source: a folder with ``avalanche`` and ``tests``, or an archive of one.
    :param target: a folder to make.
    """
    if source.is_file():
        with tarfile.open(source) as archive:
            archive.extractall(target.with_name("archive"), filter="data")
        (source,) = target.with_name("archive").iterdir()
    target.mkdir(parents=True)
    for name in KEPT:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source / name, target / name, ignore=ignored)
    for path in target.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    return target


def difference(request: PullRequest, tree: Path) -> str:
    """Return the patch that a pull request is, made on copies of the files edited."""
    earlier = needed_by(request)
    with tempfile.TemporaryDirectory() as folder:
        before, changed = Path(folder) / "before", Path(folder) / "changed"
        before.mkdir()
        for edit in [e for one in [*earlier, request] for e in one.edits]:
            path = before / edit["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / edit["file"], path)
        for needed in earlier:
            needed.change(before)
        shutil.copytree(before, changed)
        request.change(changed)
        names = dict.fromkeys([edit["file"] for edit in request.edits])
        parts = []
        for name in sorted([*names, *request.files]):
            new = not (before / name).exists()
            old = [] if new else _lines(before / name)
            parts.append(f"diff --git a/{name} b/{name}\n")
            parts += ["new file mode 100644\n"] if new else []
            parts += difflib.unified_diff(
                old,
                _lines(changed / name),
                "/dev/null" if new else f"a/{name}",
                f"b/{name}",
            )
    return "".join(parts)


def needed_by(request: PullRequest) -> list[PullRequest]:
    """Return the pull requests that must be applied before one."""
    return [one for name in request.after for one in pull_requests([name])]


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines(keepends=True)


def run(command: list[str], tree: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a tree, which stands before what is installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "FAST_TEST": "true",
        "GITHUB_ACTION": "1",  # nothing is downloaded
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def tested(modules: list[str], tree: Path) -> dict[str, list[str]]:
    """Return the names of the tests that passed and of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes.json"
        done = run(["-c", RUNNER, str(notes), *modules], tree)
        if not notes.exists():
            raise PatchError(f"{modules} ended early:\n{done.stderr[-2000:]}")
        found: dict[str, list[str]] = json.loads(notes.read_text("utf-8"))
    return found


def apply(request: PullRequest, tree: Path) -> None:
    """Apply the patch that is kept, by git."""
    for options in (["--check"], []):
        done = subprocess.run(
            ["git", "apply", "--whitespace=error-all", *options, str(request.patch)],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PatchError(f"{request.name} does not apply:\n{done.stderr}")


def check_style(request: PullRequest, tree: Path) -> None:
    """Hold the files that a pull request adds against Python 3.8 and Black's style."""
    added = [name for name in request.files if name.endswith(".py")]
    ruff = ["--isolated", "--no-cache", "--target-version", "py38"]
    for command in (
        ["-m", "ruff", "check", "--select", "E9,F", "--ignore", "F403", *ruff],
        ["-m", "ruff", "format", "--check", *ruff],
        ["-c", "import vermin; vermin.main()", "--violations", "-t=3.8-"],
    ):
        done = run([*command, *added], tree)
        if done.returncode:
            raise PatchError(f"{request.name}: {done.stdout}{done.stderr}")


def check(request: PullRequest, tree: Path, known: dict[str, set[str]]) -> str:
    """Hold one pull request against a tree; return a line of a table.

    :param tree: of Avalanche, unchanged.
    :param known: which tests pass there, by module.
    :raises PatchError: where the patch is not of these files, does not apply, breaks a
        test, or adds one that passes without it.
    """
    if difference(request, tree) != request.patch.read_text("utf-8"):
        raise PatchError(f"{request.patch} is not up to date: make it anew")
    with tempfile.TemporaryDirectory() as folder:
        bare, patched = Path(folder) / "bare", Path(folder) / "patched"
        shutil.copytree(tree, bare)
        for needed in needed_by(request):
            apply(needed, bare)
        shutil.copytree(bare, patched)
        for target, source in request.files.items():
            if Path(target).name.startswith("test_"):
                (bare / target).parent.mkdir(parents=True, exist_ok=True)
                (bare / target).write_text(request.text(source), "utf-8")
        apply(request, patched)
        check_style(request, patched)
        added = tested(request.tests, patched)
        without = tested(request.tests, bare)
        if added["failed"] or not added["passed"]:
            raise PatchError(f"{request.name}: new tests fail: {added['failed']}")
        if set(added["passed"]) & set(without["passed"]):
            raise PatchError(
                f"{request.name}: new tests pass without it: {without['passed']}"
            )
        own = set(tested(request.suites, patched)["passed"])
        before = set().union(*(known[module] for module in request.suites))
        if before - own:
            raise PatchError(f"{request.name} breaks {sorted(before - own)}")
        seconds = "–"
        if request.example:
            start = time.monotonic()
            done = run([request.example], patched)
            if done.returncode:
                raise PatchError(f"{request.example} fails:\n{done.stderr[-2000:]}")
            seconds = f"{time.monotonic() - start:.0f}"
    return f"| {request.name} | {len(added['passed'])} | {len(own)} | {seconds} |"


def check_all(requests: list[PullRequest], tree: Path) -> None:
    """Check pull requests, two at a time, and print a table."""
    modules = sorted({module for request in requests for module in request.suites})
    with ThreadPoolExecutor(2) as pool:
        passed = pool.map(lambda module: set(tested([module], tree)["passed"]), modules)
        known = dict(zip(modules, passed, strict=True))
        print("| pull request | new tests | tests of Avalanche's | example, s |")
        print("| :--- | ---: | ---: | ---: |", flush=True)
        for line in pool.map(lambda request: check(request, tree, known), requests):
            print(line, flush=True)


def main() -> None:
    """Make or check the pull requests."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["make", "check"])
    parser.add_argument("names", nargs="*", help="some of them; all by default")
    parser.add_argument("--tree", type=Path, help="sources of avalanche-lib")
    given = parser.parse_args()
    requests = pull_requests(given.names)
    with tempfile.TemporaryDirectory() as folder:
        source = given.tree or downloaded(Path(folder))
        tree = unpack(source, Path(folder) / "tree")
        if given.what == "check":
            check_all(requests, tree)
        for request in requests if given.what == "make" else ():
            request.patch.write_text(difference(request, tree), "utf-8")
            print(request.patch.relative_to(ROOT))


if __name__ == "__main__":
    try:
        main()
    except PatchError as error:
        raise SystemExit(f"error: {error}") from None
