"""The experiments on forgetting: what they measure, and how they are recorded."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from avalanche_ad.errors import (
    AvalancheADError,
    RecipeError,
    ResultsError,
    TrainingError,
)
from avalanche_ad.experiments.studies import STUDIES, find_study, what_to_update
from avalanche_ad.experiments.studies import ablation as ablation_module
from avalanche_ad.experiments.studies.ladder import LEARNED, RUNGS, shares
from avalanche_ad.experiments.studies.study import run_study
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

pytestmark = pytest.mark.slow

FEWER = {"gmm_alignment": ("plugins.0.components=4", "plugins.0.samples=400")}
"""Settings of a strategy for a fraction of the time."""
LOOKS_INSIDE = sorted(set(STUDIES) - {"category_inference", "ablation"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_stream, cache):
    """Run an experiment once, on two seeds."""
    found = {}

    def make(name):
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            sections = study_on(tiny_stream, cache, name, [0, 1], out)
            results = [
                json.loads((out / f"{name}-seed{seed}.json").read_text())
                for seed in (0, 1)
            ]
            found[name] = (out, sections, results)
        return found[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_module, "ALONE", ("center_freeze", "alignment_sdc"))
        patch.setattr(ablation_module, "REFERENCES", ("naive", "feature_gmm"))
        yield make


def study_on(stream, cache, name, seeds, out, strategy="naive", *overrides):
    return run_study(
        find_study(name),
        name,
        lambda asked: load_experiment(
            str(stream), asked, (*overrides, *FEWER.get(asked, ()))
        ),
        strategy,
        seeds,
        out,
        cache=cache,
    )


@pytest.mark.parametrize("name", STUDIES)
def test_every_experiment_writes_tables_a_figure_and_its_numbers(made, name):
    out, sections, results = made(name)
    assert sections
    assert all(section.lines for section in sections)
    for section in sections:
        assert {len(line) for line in section.lines} == {len(section.head)}
    text = (out / f"{name}.md").read_text()
    assert text.startswith(f"# {find_study(name).title}\n")
    assert "seeds 0, 1." in text
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert [result["seed"] for result in results] == [0, 1]
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize("name", ["parameter_change", "ablation"])
def test_what_is_measured_is_not_measured_again(made, tiny_stream, cache, name):
    out, sections, _ = made(name)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    again = study_on(tiny_stream, cache, name, [0, 1], out)
    assert [section.lines for section in again] == [s.lines for s in sections]
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == before


def test_files_of_another_recipe_are_refused(made, tiny_stream, cache):
    out, _, _ = made("parameter_change")
    with pytest.raises(ResultsError, match="another recipe"):
        study_on(
            tiny_stream,
            cache,
            "parameter_change",
            [0],
            out,
            "naive",
            "training.lr=1e-4",
        )


def test_a_damaged_file_is_told(made, tiny_stream, cache, tmp_path):
    (tmp_path / "drift-seed0.json").write_text("{")
    with pytest.raises(ResultsError, match="damaged: remove it"):
        study_on(tiny_stream, cache, "drift", [0], tmp_path)


@pytest.mark.parametrize("blocked", ["expansion.md", "expansion-seed0.json.partial"])
def test_a_folder_that_cannot_be_written_to_is_told(
    tiny_stream, cache, tmp_path, blocked
):
    measured = {"kinds": []}
    study = dataclasses.replace(
        find_study("expansion"),
        measure=lambda bench, seed: measured,
        sections=lambda results: [],
    )
    (tmp_path / blocked).mkdir()
    with pytest.raises(ResultsError, match="cannot write there.*writable --out"):
        run_study(
            study,
            "expansion",
            lambda asked: load_experiment(str(tiny_stream), asked),
            "naive",
            [0],
            tmp_path,
            cache=cache,
        )
    assert (tmp_path / "expansion-seed0.json").is_file() == blocked.endswith(".md")


def test_an_unknown_experiment_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean .expansion."):
        find_study("expanson")


@pytest.mark.parametrize("name", LOOKS_INSIDE)
def test_a_model_without_a_flow_is_told(tiny_stream, cache, tmp_path, name):
    with pytest.raises(TrainingError, match="feature_gmm has no flow"):
        study_on(tiny_stream, cache, name, [0], tmp_path, "feature_gmm")
    assert not list(tmp_path.iterdir())


def test_expansion_leaves_likelihood_and_calibrated_scores_of_the_oracle_kind(made):
    _, _, results = made("expansion")
    for found in results:
        rows = {
            (row["scope"], row["kind"], row["moment"]): row for row in found["rows"]
        }
        # over two categories the entropy is the same whatever it is taken over
        known, learned = (
            rows[scope, "uncertainty", "before"]["normals"]
            for scope in ("known", "when_learned")
        )
        assert known == pytest.approx(learned)
        # with two more it is larger over all of them
        before = np.mean(rows["known", "uncertainty", "before"]["normals"])
        after = np.mean(rows["known", "uncertainty", "after"]["normals"])
        assert after > before


def test_nothing_is_recovered_without_an_image_and_a_step(made):
    _, _, results = made("few_shot_recovery")
    for found in results:
        rows = {(row["exemplars"], row["steps"]): row for row in found["rows"]}
        same = rows["after the last task", None]["pixel_auroc"]
        assert rows[0, 0]["pixel_auroc"] == same
        assert rows[16, 100]["pixel_auroc"] != same


def test_parts_that_are_not_trained_leave_their_scores_alone(made):
    _, _, results = made("what_to_update")
    for found in results:
        rows = {(row["part"], row["kind"]): row for row in found["rows"]}
        assert len(rows) == 15
        normals = [
            rows[part, "uncertainty"]["normals"] for part in what_to_update.PARTS
        ]
        assert len(set(normals)) == 5
        # centres alone make the entropy larger
        assert normals[1] > normals[0]


def test_what_a_strategy_keeps_besides_the_model_takes_part(
    made, tiny_stream, cache, tmp_path
):
    study_on(tiny_stream, cache, "what_to_update", [0], tmp_path, "replay")
    replay = json.loads((tmp_path / "what_to_update-seed0.json").read_text())["rows"]
    _, _, results = made("what_to_update")
    for part, same in (("before", True), ("both", False)):
        ours, naive = (
            [row["normals"] for row in rows if row["part"] == part]
            for rows in (replay, results[0]["rows"])
        )
        # but for the order in which the calibration met the images
        assert (ours == pytest.approx(naive, rel=1e-5)) == same


@pytest.mark.parametrize(
    ("name", "strategy", "message"),
    [
        ("what_to_update", "gmm_alignment", "Plugin takes the gradient.*such as naive"),
        ("drift", "joint", "'joint' learns all tasks at once"),
    ],
)
def test_a_strategy_that_cannot_be_followed_is_told(
    tiny_stream, cache, tmp_path, name, strategy, message
):
    with pytest.raises(AvalancheADError, match=message):
        study_on(tiny_stream, cache, name, [0], tmp_path, strategy)
    assert not list(tmp_path.iterdir())


def test_a_seed_gives_the_same_first_and_later(made, tiny_stream, cache, tmp_path):
    _, _, results = made("convergence")
    study_on(tiny_stream, cache, "convergence", [1], tmp_path)
    alone = json.loads((tmp_path / "convergence-seed1.json").read_text())
    assert alone == results[1]


@pytest.mark.parametrize("seeds", [[0, 1], [0, 1, 2]])
def test_seeds_of_other_features_are_refused(made, tiny_stream, cache, tmp_path, seeds):
    out, _, _ = made("parameter_change")
    for path in out.glob("*.json"):
        content = json.loads(path.read_text())
        assert len(content["features"]) == 12
        if seeds == [0, 1, 2] or path.name.endswith("seed1.json"):
            content["features"] = "0123456789ab"
        (tmp_path / path.name).write_text(json.dumps(content))
    with pytest.raises(ResultsError, match="different features.*0123456789ab.*--out"):
        study_on(tiny_stream, cache, "parameter_change", seeds, tmp_path)
    assert not (tmp_path / "parameter_change-seed2.json").exists()


@pytest.mark.parametrize("seeds", [[0], [0, 1], [0, 1, 2]])
def test_seeds_of_other_images_are_refused(made, tiny_stream, cache, tmp_path, seeds):
    out, _, _ = made("parameter_change")
    for path in out.glob("*.json"):
        content = json.loads(path.read_text())
        if path.name.endswith("seed1.json") or seeds != [0, 1]:
            content["data"]["gear"] = "0123456789abcdef"
        (tmp_path / path.name).write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"masks: gear changed \(seed 0"):
        study_on(tiny_stream, cache, "parameter_change", seeds, tmp_path)
    assert not (tmp_path / "parameter_change-seed2.json").exists()


def test_an_ablation_of_other_recipes_is_not_taken_for_this_one(
    made, tiny_stream, cache, monkeypatch
):
    out, _, _ = made("ablation")
    monkeypatch.setattr(ablation_module, "WHOLE", "statistics_rehearsal")
    with pytest.raises(ResultsError, match="measured on another recipe"):
        study_on(tiny_stream, cache, "ablation", [0], out)


def test_the_ladders_shares_are_of_what_was_lost():
    rung = next(iter(RUNGS))

    def found(learned, last, regained):
        return {
            "rows": {
                LEARNED: [learned, 0.9],
                "after the last task": [last, 0.9],
                rung: [regained, 0.9],
            }
        }

    results = [found(0.9, 0.5, 0.7), found(0.8, 0.6, 0.9), found(0.6, 0.7, 0.8)]
    assert shares(results, rung, 0) == [pytest.approx(0.5), pytest.approx(1.5), None]
    assert shares(results, rung, 1) == [None, None, None]


def test_latents_drift_and_frozen_centres_do_not(tiny_stream, cache, tmp_path):
    study_on(tiny_stream, cache, "drift", [0], tmp_path, "center_freeze")
    rows = json.loads((tmp_path / "drift-seed0.json").read_text())["rows"]
    for row in rows:
        if row["after"] > row["learned"]:
            assert row["drift"] > 0
        assert row["center_drift"] == 0


def test_a_frozen_flow_does_not_change(tiny_stream, cache, tmp_path):
    study_on(tiny_stream, cache, "parameter_change", [0], tmp_path, "frozen_flow")
    rows = json.loads((tmp_path / "parameter_change-seed0.json").read_text())["rows"]
    changes = {row["part"]: row["change"] for row in rows}
    flow = [change for part, change in changes.items() if part.startswith("flow")]
    assert flow
    assert not any(flow)
    assert changes["inner weights ψ"] > 0


def test_the_whole_is_taken_apart(made):
    _, _, results = made("ablation")
    names = list(results[0]["variants"])
    assert names[:5] == [
        "naive",
        "feature_gmm",
        "center_freeze",
        "alignment_sdc",
        "gmm_alignment",
    ]
    assert all(name.startswith("gmm_alignment without ") for name in names[5:])
    assert len(names) == 8


def test_the_command_prints_its_tables(cli, tiny_stream, tmp_path):
    torch.manual_seed(0)
    found = cli(
        *("experiment", "parameter_change", "-b", tiny_stream, "--out", tmp_path)
    )
    assert found.code == 0, found.err
    assert "inner weights ψ" in found.out
    assert "parameter_change.png" in found.err
    listed = cli("list", "experiments")
    assert listed.code == 0
    assert all(name in listed.out for name in STUDIES)
