"""One run: a recipe in, a folder with results, metrics and the model out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.training.determinism.rng_manager import RNGManager

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import reading
from avalanche_ad.experiments.beginning import (
    beginning,
    experiences_behind,
    fresh_state,
    has_fresh_thresholds,
    make_room,
    place,
)
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    check_strategy,
    open_data,
)
from avalanche_ad.experiments.checkpoint import (
    StaleCheckpointError,
    restore_generators,
)
from avalanche_ad.experiments.checkpoint_plugin import (
    CHECKPOINT_MINUTES,
    CheckpointPlugin,
)
from avalanche_ad.experiments.finished import (
    check_origin,
    check_same_images,
    finished_run,
    shared_digests,
)
from avalanche_ad.experiments.folder import is_worked_on, run_folder
from avalanche_ad.experiments.learning import AfterTask, learn
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.provenance import (
    check_data_of_run,
    git_commit,
)
from avalanche_ad.experiments.recording import run_identity, run_results, save_run_model
from avalanche_ad.experiments.results import write_json
from avalanche_ad.experiments.run_state import (
    Checkpoints,
    only,
)
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import ExperimentRecipe

__all__ = ["run_experiment"]

AfterFeatures = Callable[[int], None]


def run_experiment(
    recipe: ExperimentRecipe,
    out: Path,
    *,
    data_root: Roots = None,
    seed: int = 0,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    announce: Callable[[str], None] = lambda text: None,
    after_features: AfterFeatures | None = None,
    after_task: AfterTask | None = None,
    fresh: bool = False,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train and evaluate a strategy on a stream, and save the run.

    After each experience the experiences seen so far are evaluated; with the recipe's
    ``forward_transfer`` the next one too, apart from them. The folder gets
    ``results.json``, ``metrics.csv``, ``model.json``, ``model.safetensors`` and
    ``learner`` at the end, all or none of them; until then the run lives beside it as
    ``NAME.partial``, with a checkpoint from which the same call resumes after an
    interruption: one after each experience, and within one at the end of an epoch
    where the last is some minutes old. It goes on to the same bits.

    :param recipe: what to run.
    :param out: the run's folder; a finished run of the same recipe and seed is
        returned, one of another recipe or seed and anything else is refused.
    :param data_root: the data set's folder, or several; the recipe's own otherwise.
    :param seed: decides the model's start and the order of minibatches.
    :param device: where to train.
    :param cache: the feature cache.
    :param progress: a progress bar.
    :param announce: called with a line of text where a run is there or goes on.
    :param after_features: called when all features are there, with the number of calls
        of the backbone that it took: 0 when the cache had them all.
    :param after_task: called with the experience's index and its evaluation.
    :param fresh: make a finished run anew, and let it take the place of the old one's
        files when it is finished (interrupted, the same call resumes it); where there
        is none, discard an interrupted one.
    :param checkpoint_minutes: between two checkpoints within an experience, 0 for one
        an epoch.
    :param start: a finished run to go on from: its learner, whole, learns what is new.
        The stream begins with the experiences it has learned, or holds new categories
        alone; then the old ones' images need not be there, and are not evaluated. The
        seed and all but the stream must be as they were. The results are those of one
        run of the whole stream, where its categories are all evaluated, since an
        evaluation draws random numbers too.
    :return: what ``results.json`` holds.
    :raises AvalancheADError: when data, recipe or folder are not as expected, an
        interrupted run in the folder is another, or training breaks.
    """
    started, commit = time.perf_counter(), git_commit()
    check_strategy(recipe)
    device = device or torch.device("cpu")

    def there() -> dict[str, Any] | None:
        # one of another recipe, seed or beginning is refused, with --fresh as well
        results = finished_run(out, recipe, data_root, seed, start)
        if results is None or fresh:
            return None
        check_origin(out, results, recipe, data_root)
        roots = recipe.benchmark.data_roots(data_root)
        gone = next((root for root in roots if not root.is_dir()), None)
        unseen = f", its images not compared (no folder {gone})" if gone else ""
        announce(f"{out}: this run is already there{unseen}; --fresh makes it anew")
        return results

    with reading(out):  # before anything is written: it may be in a place for that
        if not is_worked_on(out) and (results := there()):
            return results
    with run_folder(out) as folder:
        fresh = fresh and not folder.arrived
        if results := there():
            return results
        # the data first: a backbone may have to be downloaded
        data = open_data(recipe.benchmark, data_root)
        elsewhere, continued = experiences_behind(recipe, data, start)
        backbone = build_backbone(recipe.benchmark)
        identity = run_identity(recipe, data_root, seed, device, backbone, continued)
        find = partial(beginning, folder, identity, device, start, fresh, announce)
        try:
            found, resumed = find()
            stale = False
        except StaleCheckpointError:  # of features that are made anew first
            stale = True
        benchmark = build_benchmark(
            recipe.benchmark,
            data,
            backbone,
            cache or FeatureCache(),
            device,
            progress.report if progress else None,
            elsewhere,
        )
        if after_features:
            after_features(backbone.calls)
        if stale:
            found, resumed = find()
        made = found["identity"].get("data", {}) if found else {}
        if start is None:
            check_data_of_run(folder.partial, made, benchmark.digests)
        else:
            check_same_images(start, *shared_digests(made, benchmark.digests))
        identity["data"] = {**made, **benchmark.digests}
        waited = time.perf_counter() - started

        if found is None:
            # only now: a wrong command must not cost another run its checkpoint
            folder.clear()
            RNGManager.set_random_seeds(seed)
            state = fresh_state(recipe, benchmark, device, folder, seed)
        else:
            state = found["state"]
            identity["versions"]["device"] = str(state.strategy.device)
        if not resumed:
            state.fresh = fresh
            if start is not None:
                folder.clear()
                shutil.copyfile(start / folder.metrics.name, folder.metrics)
                make_room(state, benchmark)
            folder.note_replaced()
        checkpoints = Checkpoints(folder, identity, state)
        if found is None:
            checkpoints.probe()
        else:
            folder.cut_metrics(state.csv_bytes)
            state.logger.path = folder.metrics  # seen from where this run was started
            announce(place(out, state, benchmark, folder.partial if resumed else start))
            if start is not None and not resumed and has_fresh_thresholds(start):
                announce(
                    f"the thresholds that calibrate took for {start} stay with it: "
                    "take them anew for this run"
                )
            # last, because building a backbone draws random numbers
            restore_generators(found)
        state.training_images |= benchmark.training_images
        only(CheckpointPlugin, state.strategy.plugins).minutes = checkpoint_minutes
        learn(recipe, benchmark, state, checkpoints, progress, after_task)

        results = run_results(recipe, benchmark, state, identity, waited)
        results["git"] = commit
        save_run_model(recipe, benchmark, state, folder)
        checkpoints.save_learner()
        write_json(folder.partial / "results.json", results)
        folder.publish()
    return results
