"""Runs in which one file-system call fails, and what is left of them.

Started with the library of ``faults.c`` preloaded:

    harness.py LIBRARY STREAM CACHE WORK SCENARIO[,SCENARIO] {some|each|every}

prints a JSON object with one for each scenario: how many calls there are, how many runs
had one fail, and a line for everything that was not as it must be. ``every`` fails each
call in every way, ``each`` each call in one of the ways in turn, ``some`` every ninth
so. Each run is a fork of this process, so that importing is paid once. Scenarios:
``new``, a run in a new folder; ``fresh``, one over a finished run and a person's files;
``volume``, one in a mount point; ``single``, one of a single task; and ``careless``,
which moves the run as nobody should, to see that it is noticed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import traceback
import warnings
from pathlib import Path

import torch

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.folder import RunFolder
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

KILL, STICKY = -1, 1000
KINDS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EBUSY": errno.EBUSY,
    "EACCES": errno.EACCES,
    "SIGKILL": KILL,
    # a full disk stays full, a folder without permission stays so
    "ENOSPC from then on": STICKY + errno.ENOSPC,
    "EACCES from then on": STICKY + errno.EACCES,
}
OURS = ("results.json", "metrics.csv", "model.json", "model.safetensors", "learner")
MINE = {"notes.txt": "mine", "predictions/a.png": "also mine"}
DONE, TOLD, DEFECT = 0, 10, 20


def careless(folder):
    """What destroys a person's files, and a finished run where the last step fails."""
    shutil.rmtree(folder.out, ignore_errors=True)
    folder.out.mkdir()
    for name in OURS:
        (folder.partial / name).rename(folder.out / name)


class Harness:
    def __init__(self, library, stream, cache, work, scenario):
        self.shim = ctypes.CDLL(library)
        self.shim.faults_log.restype = ctypes.c_char_p
        self.shim.faults_arm.argtypes = [
            ctypes.c_char_p,
            ctypes.c_long,
            *3 * [ctypes.c_int],
        ]
        overrides = ["model.max_positions=100"]
        if scenario == "single":
            overrides += ['experiences=[["bolt"]]']
        self.recipe = load_experiment(stream, "feature_gmm", overrides)
        self.cache = FeatureCache(cache)
        self.work = work
        self.scenario = scenario
        self.out = work / "run"
        self.inside = scenario == "volume"
        self.fresh = scenario in ("fresh", "careless")
        self.wrong = []

    def run(self, fresh=False):
        """One run in this process."""
        run_experiment(self.recipe, self.out, cache=self.cache, fresh=fresh)

    def fork(self, armed=None, fresh=False, report=None):
        """One run in a process of its own; its exit code, or minus its signal."""
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        code, text = DEFECT, ""
        try:
            if self.scenario == "careless":
                RunFolder.publish = careless
            if self.inside:
                os.path.ismount = lambda path: Path(path) == self.out
            if armed:
                self.shim.faults_arm(str(self.out).encode(), *armed)
            try:
                self.run(fresh)
                code = DONE
            finally:
                self.shim.faults_disarm()
            text = self.shim.faults_log().decode()
        except AvalancheADError as error:
            code, text = TOLD, str(error)
        except BaseException:
            text = traceback.format_exc()
        if report:
            report.write_text(text)
        os._exit(code)

    def prepare(self):
        """What is there before the run."""
        shutil.rmtree(self.work)
        self.work.mkdir()
        if self.scenario == "volume":
            self.out.mkdir()
            (self.out / "lost+found").mkdir()
        if self.fresh:
            shutil.copytree(self.work.with_name("finished"), self.out)
            for name, text in MINE.items():
                (self.out / name).parent.mkdir(exist_ok=True)
                (self.out / name).write_text(text)

    def digest(self, folder):
        """Of a run's files that do not vary, None where one is missing."""
        try:
            results = json.loads((folder / "results.json").read_text())
            for key in ("seconds", "peak_rss_mb", "git"):
                results.pop(key)
            parts = [json.dumps(results).encode()]
            parts += [(folder / name).read_bytes() for name in OURS[1:4]]
        except (OSError, ValueError, KeyError):
            return None
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def check(self, where, code, told):
        """What must hold after a run in which a call failed."""

        def expect(true, what):
            if not true:
                self.wrong.append(f"{self.scenario}, {where}: {what}; {told[-1500:]}")

        partials = [self.work / "run.partial", self.out / "run.partial"]
        complete = [p for p in (self.out, *partials) if self.digest(p)]
        there = (self.out / "results.json").exists()
        expect(code in (DONE, TOLD, -9), f"ended with {code}")
        expect(not there or self.digest(self.out), "a run that is not whole")
        if code == DONE:
            expect(there, "done, but the run is not in its place")
        if code == TOLD:
            expect("\n" not in told, "more than a line")
            named = [p for p in (self.out, *partials) if str(p) in told]
            expect(named, "no folder is named")
            if "it is complete in" in told:
                expect(set(complete) & set(named), "no complete run where it is said")
        if self.fresh:
            former = partials[0] / "former"
            both = complete or self.digest(former)
            expect(both, "the finished run is gone")
        learned = self.checkpointed or (complete and not there)
        self.checkpointed = False
        if learned:
            expect(
                complete or any((p / "checkpoint").exists() for p in partials),
                "what was learned is gone",
            )
        report = self.work.with_name("report")
        again = self.fork(fresh=self.fresh, report=report)
        told = report.read_text()
        expect(again == DONE, f"the same command ended with {again} the next time")
        expect(self.digest(self.out) == self.expected, "another run than expected")
        left = {path.name for path in self.work.iterdir()}
        expect(left == {"run"}, f"left behind: {sorted(left)}")
        names = {p.relative_to(self.out).as_posix() for p in self.out.rglob("*")}
        others = names - set(OURS) - set(MINE) - {"predictions", "lost+found"}
        # of a process that was killed as it tidied up
        others -= {"checkpoint", "replaces", "run.lock", ".avalanche_ad_partial"}
        expect(not others, f"left in the run: {sorted(others)}")
        if self.fresh:
            for name, text in MINE.items():
                path = self.out / name
                kept = path.is_file() and path.read_text() == text
                expect(kept, f"{name} of a person is gone")

    def all(self, kinds, ways):
        report = self.work.with_name("report")
        shutil.rmtree(self.work)  # of another scenario
        self.work.mkdir()
        if self.fresh:
            finished = self.work.with_name("finished")
            shutil.rmtree(finished, ignore_errors=True)
            self.fork()
            self.out.rename(finished)
        self.prepare()
        code = self.fork((0, 0, 0, 1), self.fresh, report)
        assert code == DONE, report.read_text()
        calls = report.read_text().splitlines()
        self.expected = self.digest(self.out)
        assert self.expected
        saved = next(
            number
            for number, call in enumerate(calls, 1)
            if call.startswith("rename") and call.endswith("/checkpoint.partial")
        )
        failed = 0
        first = len(calls) - 60 if self.scenario == "careless" else 1
        for number in range(first, len(calls) + 1, 9 if ways == "some" else 1):
            turn = (number + len(self.scenario)) % len(kinds)
            chosen = kinds if ways == "every" else kinds[turn : turn + 1]
            for kind in chosen:
                value = KINDS[kind]
                sticky = value >= STICKY
                self.prepare()
                self.checkpointed = number > saved
                error = value - STICKY if sticky else value
                report.write_text("")
                code = self.fork((number, error, sticky, 0), self.fresh, report)
                where = f"{kind} at call {number} of {len(calls)}, {calls[number - 1]}"
                self.check(where, code, report.read_text())
                print(number, kind, len(self.wrong), file=sys.stderr, flush=True)
                failed += 1
        return {"calls": len(calls), "failed": failed, "wrong": self.wrong}


def main(library, stream, cache, work, scenarios, ways):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("avalanche_ad").addHandler(logging.NullHandler())
    Path(work).mkdir(parents=True, exist_ok=True)
    found = {}
    for scenario in scenarios.split(","):
        harness = Harness(library, stream, cache, Path(work), scenario)
        if not found:  # what a run imports late is then there in every fork
            harness.run()
        found[scenario] = harness.all(list(KINDS), ways)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
