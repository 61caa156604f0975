"""Compare strategies over seeds: one folder a run, finished runs are not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import (
    AvalancheADError,
    RecipeError,
    ResultsError,
    RunBusyError,
)
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    check_strategy,
    data_digests,
    features_now,
    open_data,
)
from avalanche_ad.experiments.finished import check_code, finished_run
from avalanche_ad.experiments.parallel import Job, run_jobs
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.provenance import (
    check_same_data,
    check_same_features,
    features_id,
)
from avalanche_ad.experiments.results import read_results
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import BenchmarkRecipe, ExperimentRecipe
from avalanche_ad.reporting.comparison import write_comparison, write_matrix_figures

__all__ = ["compare", "published_note"]

_STREAM = {  # what decides which images arrive when
    "dataset",
    "dataset_options",
    "categories",
    "n_experiences",
    "classes_per_experience",
    "experiences",
    "class_order",
    "order_seed",
    "blurry",
}


def compare(
    recipes: Sequence[ExperimentRecipe],
    seeds: Sequence[int],
    out: Path,
    *,
    data_root: Roots = None,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    announce: Callable[[str], None] = lambda text: None,
    jobs: int = 1,
    threads: int | None = None,
    against: str | None = None,
    published: BenchmarkRecipe | None = None,
) -> list[dict[str, Any]]:
    """Run every recipe with every seed, and write the comparison.

    A run lives in ``OUT/STRATEGY-seedN``. One that is finished with the same recipe is
    read, not run again; one of another recipe, of images that have changed since, or of
    features that the backbone no longer gives, is refused, not overwritten, before
    anything runs. After every run the
    tables are written, see
    :func:`~avalanche_ad.reporting.comparison.write_comparison`, and at the end the
    figures.

    A run that fails ends the comparison, once the runs beside it are finished. One that
    another process is working on is left out, and told at the end.

    :param recipes: one per strategy, all of one benchmark.
    :param seeds: the seeds.
    :param out: the folder.
    :param announce: called with a line of text as work goes on.
    :param jobs: runs at a time. Two or more run in spawned processes of their own, with
        the same results; a script needs ``if __name__ == "__main__":`` for that.
    :param threads: CPU threads of each such process; the others are as they are.
    :param against: name of the strategy that the others are tested against.
    :param published: the benchmark whose published numbers are shown, by default the
        recipes' own.
    :return: all results, strategy by strategy.
    :raises AvalancheADError: as :func:`run_experiment`.
    """
    _check_names([recipe.strategy_name for recipe in recipes], against)
    for recipe in recipes:
        try:
            check_strategy(recipe)
        except RecipeError as error:
            raise RecipeError(f"{recipe.strategy_name}: {error}") from None
    every = [
        Job(recipe, seed, out / f"{recipe.strategy_name}-seed{seed}")
        for recipe in recipes
        for seed in seeds
    ]
    stream = recipes[0].benchmark
    state = _Comparison(every, out, stream, announce, against, published or stream)
    state.read(data_root)
    cache = cache or FeatureCache()
    device = device or torch.device("cpu")
    left = [job for job in every if job not in state.ended]
    if jobs > 1 and len(left) > 1:
        _fill_cache(stream, data_root, cache, device, progress)
        if progress:
            progress.start("runs", len(left))

        def done(job: Job, seconds: float) -> None:
            state.note(job, read_results(job.folder))
            number = len(state.ended)
            announce(f"[{number}/{len(every)}] {job}: done in {seconds:.0f} s")
            if progress:
                progress.advance("runs")

        run_jobs(
            left,
            jobs,
            data_root=data_root,
            device=str(device),
            threads=threads,
            cache=cache,
            done=done,
            failed=state.fails,
            announce=announce,
        )
    else:
        first = len(every) - len(left) + 1
        for number, job in enumerate(left, first):
            announce(f"[{number}/{len(every)}] {job}")
            try:
                result = run_experiment(
                    job.recipe,
                    job.folder,
                    data_root=data_root,
                    seed=job.seed,
                    device=device,
                    cache=cache,
                    progress=progress,
                    announce=announce,
                )
            except AvalancheADError as error:
                if state.fails(job, error):
                    break
            else:
                state.note(job, result)
    return state.close()


def _fill_cache(
    stream: BenchmarkRecipe,
    data_root: Roots,
    cache: FeatureCache,
    device: torch.device,
    progress: RunProgress | None,
) -> None:
    """Compute the features once, and tell what is wrong with the data once."""
    report = progress.report if progress else None
    data, backbone = open_data(stream, data_root), build_backbone(stream)
    build_benchmark(stream, data, backbone, cache, device, report)


def _check_names(names: Sequence[str], against: str | None) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"two of the strategies are called {name!r} and would share a folder: "
                "rename one of the files"
            )
    if against is not None and against not in names:
        raise RecipeError(
            f"--against {against!r}: expected one of the compared strategies: "
            f"{', '.join(names)}"
        )


class _Comparison:
    """Which runs are there, which failed, and the files that show it.

    :param every: all runs.
    :param out: where the files go.
    :param stream: what the runs learn.
    :param announce: called with lines of text.
    :param against: name of the strategy that the others are tested against.
    :param published: the benchmark whose published numbers are shown.
    """

    def __init__(
        self,
        every: Sequence[Job],
        out: Path,
        stream: BenchmarkRecipe,
        announce: Callable[[str], None],
        against: str | None,
        published: BenchmarkRecipe,
    ) -> None:
        self.every = every
        self.out = out
        self.stream = stream
        self.announce = announce
        self.against = against
        self.published = published
        self.ended: dict[Job, dict[str, Any]] = {}
        self.failures: list[tuple[Job, AvalancheADError]] = []
        self.busy: list[Job] = []

    @property
    def results(self) -> list[dict[str, Any]]:
        """What is there, strategy by strategy."""
        return [self.ended[job] for job in self.every if job in self.ended]

    def read(self, data_root: Roots) -> None:
        """Read the runs that are finished.

        :raises ResultsError: when one is damaged or of another recipe or seed, of other
            images than there are now, or of features that the backbone of this name no
            longer gives.
        """
        for job in self.every:
            result = finished_run(job.folder, job.recipe, data_root, job.seed)
            if result is None:
                continue
            check_code(job.folder, result, job.recipe)
            self.ended[job] = result
        if self.ended:
            self._check_origin(data_root)
        for number, job in enumerate(self.ended, 1):
            self.announce(f"[{number}/{len(self.every)}] {job}: already there")
        if self.ended:
            self._write()

    def _check_origin(self, data_root: Roots) -> None:
        """Refuse finished runs of other images or features than there are now.

        Where nothing is left to be made, the data and a weight file count as far as
        they are still there.
        """
        left = len(self.ended) < len(self.every)
        now = "those to be made" if left else "what is there now"
        data = data_digests(self.stream, data_root)
        if left and data is None:
            open_data(self.stream, data_root)  # says what is missing
        check_same_data(
            [
                *((j.folder.name, r.get("data")) for j, r in self.ended.items()),
                (now, data),
            ]
        )
        # a backbone may have to be fetched, so only after the data
        stream = self.stream
        features = features_id(build_backbone(stream)) if left else features_now(stream)
        made = [
            (job.folder.name, result.get("versions", {}).get("features"))
            for job, result in self.ended.items()
        ]
        check_same_features(stream.features.backbone, [*made, (now, features)])

    def note(self, job: Job, result: dict[str, Any]) -> None:
        """Take in a finished run.

        :raises ResultsError: when images were changed while the runs were made.
        """
        self.ended[job] = result
        check_same_data((j.folder.name, r.get("data")) for j, r in self.ended.items())
        self._write()

    def fails(self, job: Job, error: AvalancheADError) -> bool:
        """Take in an error, and return whether no other run should start."""
        if isinstance(error, RunBusyError):
            self.announce(f"{job}: another process is working on this run")
            self.busy.append(job)
            return False
        self.failures.append((job, error))
        return True

    def close(self) -> list[dict[str, Any]]:
        """Draw the figures, and return the results.

        :raises AvalancheADError: when a run is missing.
        """
        if self.ended:
            write_matrix_figures(self.out, self.stream.title, self.results)
        if self.failures:
            (job, error), *others = self.failures
            for other, reason in others:
                if str(reason) != str(error):
                    self.announce(f"{other}: {reason}")
            raise type(error)(f"{job}: {error}") from error
        if self.busy:
            raise ResultsError(
                "missing, because other processes are working on them: "
                f"{'; '.join(map(str, self.busy))}. Run the same command again later"
            )
        return self.results

    def _write(self) -> None:
        write_comparison(
            self.out,
            self.stream.title,
            self.results,
            against=self.against,
            published=[entry.model_dump() for entry in self.published.published],
            note=published_note(self.stream, self.published),
        )


def published_note(measured: BenchmarkRecipe, published: BenchmarkRecipe) -> str:
    """Say so when published numbers are of another benchmark than measured ones."""
    if measured.model_dump(include=_STREAM) == published.model_dump(include=_STREAM):
        return ""
    return (
        f"Published numbers are of another benchmark ({published.title}) than those "
        f"measured here ({measured.title}): compare differences between strategies, "
        "not values."
    )
