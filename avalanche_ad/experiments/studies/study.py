"""What an experiment is made of, and how one is run and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import (
    DatasetError,
    RecipeError,
    ResultsError,
    writing,
)
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    check_strategy,
    data_digests,
    features_now,
    open_data,
)
from avalanche_ad.experiments.configuration import (
    configuration_differences,
    named_differences,
    run_configuration,
)
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.provenance import (
    check_same_data,
    check_same_features,
    features_id,
)
from avalanche_ad.experiments.results import write_json
from avalanche_ad.experiments.studies.bench import Bench, Load, Measurements
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.reporting.tables import Section, sections_markdown

__all__ = ["Study", "run_study"]


@dataclass(frozen=True)
class Study:
    """An experiment: what is measured for a seed, and how it is shown.

    :param title: heading.
    :param question: what it asks and how, in a few sentences.
    :param measure: measures one seed.
    :param sections: tables of what all seeds gave, in the order of the seeds.
    :param figure: a figure of it.
    :param recipes: gives the recipes that it runs besides the one asked for, by name:
        what was measured on others is not taken for it.

    >>> def measure(bench, seed):
    ...     strategy = bench.strategy(seed)
    ...     return {"learned": list(bench.learn(strategy))}
    >>> study = Study(
    ...     title="Learning",
    ...     question="Is every task learned?",
    ...     measure=measure,
    ...     sections=lambda found: [],
    ...     figure=lambda found: Figure(),
    ... )
    """

    title: str
    question: str
    measure: Callable[[Bench, int], Measurements]
    sections: Callable[[Sequence[Measurements]], list[Section]]
    figure: Callable[[Sequence[Measurements]], Figure]
    recipes: Callable[[Load], Mapping[str, ExperimentRecipe]] | None = None


def run_study(
    study: Study,
    name: str,
    load: Load,
    strategy: str,
    seeds: Sequence[int],
    out: Path,
    *,
    data_root: Roots = None,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> list[Section]:
    """Measure every seed that is not measured yet, and write tables and a figure.

    A seed's measurements are ``NAME-seedN.json`` in ``out``, complete or absent, so an
    interrupted experiment goes on where it was; ``NAME.md`` and ``NAME.png`` show all.

    :param study: what to measure.
    :param name: its name, for the files.
    :param load: gives the recipe of a strategy on the stream by the strategy's name.
    :param strategy: the strategy to measure on.
    :param seeds: as of ``avalanche-ad run``.
    :param out: folder of the files.
    :param data_root: the data set's folder, or several; the recipe's own otherwise.
    :param device: where to compute.
    :param cache: the feature cache.
    :param progress: a progress bar.
    :param announce: called with lines of text.
    :return: the tables.
    :raises AvalancheADError: when data, recipe or folder are not as expected.
    """
    recipe = load(strategy)
    check_strategy(recipe)
    device, cache = device or torch.device("cpu"), cache or FeatureCache()
    every = {"": recipe, **(study.recipes(load) if study.recipes else {})}
    configurations = json.loads(
        json.dumps({n: run_configuration(r, data_root) for n, r in every.items()})
    )
    found: dict[int, Measurements] = {}
    made: list[tuple[str, str | None]] = []
    digests: list[tuple[str, Mapping[str, str] | None]] = []
    for seed in seeds:
        kept = _read(out / f"{name}-seed{seed}.json", configurations)
        if kept is not None:
            announce(f"seed {seed}: already there")
            made.append((f"seed {seed}", kept.pop("features", None)))
            digests.append((f"seed {seed}", kept.pop("data", None)))
            found[seed] = kept
    if len(found) == len(seeds):
        now = "what is there now"
        digests.append((now, data_digests(recipe.benchmark, data_root)))
        made.append((now, features_now(recipe.benchmark)))
    check_same_data(digests)
    check_same_features(recipe.benchmark.features.backbone, made)
    if len(found) < len(seeds):
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        data = open_data(recipe.benchmark, data_root)
        backbone = build_backbone(recipe.benchmark)
        features = features_id(backbone)
        made.append(("those to be made", features))
        check_same_features(recipe.benchmark.features.backbone, made)
        report = progress.report if progress else None
        stream = build_benchmark(
            recipe.benchmark, data, backbone, cache, device, report
        )
        check_same_data([*digests, ("those to be made", stream.digests)])
        if len(stream.experiences) < 2:
            raise RecipeError(
                "the stream has one task and nothing to forget: an experiment needs "
                "two or more"
            )
        if not any(len(test.dataset) for test in stream.test_stream):
            raise DatasetError("there is no test image, and experiments evaluate some")
        bench = Bench(recipe, load, stream, out, data_root, device, cache, progress)
        for seed in seeds:
            if seed in found:
                continue
            if len(seeds) > 1:
                announce(f"seed {seed}")
            found[seed] = study.measure(bench, seed)
            content = {
                "configurations": configurations,
                "seed": seed,
                "features": features,
                "data": stream.digests,
                **found[seed],
            }
            with writing(out):
                write_json(out / f"{name}-seed{seed}.json", content)
    results = [found[seed] for seed in seeds]
    sections = study.sections(results)
    named = ", ".join(map(str, seeds))
    intro = (
        f"{study.question}\n\nStream `{recipe.benchmark_name}`, strategy "
        f"`{recipe.strategy_name}`, seed{'s' * (len(seeds) > 1)} {named}."
    )
    text = sections_markdown(study.title, intro, sections)
    with writing(out):
        (out / f"{name}.md").write_text(text, "utf-8")
        study.figure(results).savefig(out / f"{name}.png", dpi=150)
    return sections


def _read(path: Path, configurations: Mapping[str, Any]) -> Measurements | None:
    """Return what a seed gave before.

    :param path: the file.
    :param configurations: of the recipes it is to be measured on, by name; the one
        asked for has none.
    :raises ResultsError: when the file is damaged or of another recipe.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        before = content.pop("configurations")
        differences = [
            f"{name}: {difference}" if name else difference
            for name in dict.fromkeys([*before, *configurations])
            for difference in configuration_differences(
                before.get(name, {}), configurations.get(name, {})
            )
        ]
        content.pop("seed")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ResultsError(f"{path} is damaged: remove it to measure anew") from None
    if differences:
        raise ResultsError(
            f"{path} was measured on another recipe ({named_differences(differences)}):"
            " remove it, or choose another --out"
        )
    found: Measurements = content
    return found
