"""Measured beside published numbers, conventions apart."""

from __future__ import annotations

import pytest

from avalanche_ad.reporting.published import published_sections


def result(strategy, seed, value, *, joint=False):
    rows = [[None if joint else 0.9, None], [0.5, 0.8]]
    return {
        "strategy": strategy,
        "seed": seed,
        "matrix": {"image_auroc": rows, "pixel_auroc": rows},
        "final": {"image_auroc": value, "pixel_auroc": value + 0.1},
        "step_mean": dict.fromkeys(("image_auroc", "pixel_auroc"), value - 0.2),
        "forgetting": dict.fromkeys(
            ("image_auroc", "pixel_auroc"), None if joint else 0.3
        ),
    }


RESULTS = [
    result("naive", 0, 0.5),
    result("naive", 1, 0.7),
    result("joint", 0, 0.9, joint=True),
]


def entry(method, convention, **more):
    numbers = {"image_auroc": 0.61, "pixel_auroc": 0.71, "image_forgetting": 0.31}
    source = {"method": method, "source": "Them, 2024", "convention": convention}
    return {**source, **numbers, "pixel_forgetting": None, **more}


def test_conventions_are_never_mixed():
    entries = [
        entry("A", "final"),
        entry("B", "step_mean"),
        entry("C", "joint"),
    ]
    final, steps, joint = published_sections(RESULTS, entries)
    assert final.lines == [
        [
            *("naive", "here, 2 seeds"),
            *("0.600 ± 0.141", "0.700 ± 0.141", "0.300 ± 0.000", "0.300 ± 0.000"),
        ],
        ["A", "Them, 2024", "0.610", "0.710", "0.310", "–"],
    ]
    assert [line[0] for line in steps.lines] == ["naive", "B"]
    assert steps.lines[0][2] == "0.400 ± 0.141"
    assert [line[0] for line in joint.lines] == ["joint", "C"]
    assert joint.lines[0][2:] == ["0.900", "1.000", "–", "–"]
    for section in (final, steps, joint):
        assert "positive = forgot" in section.caption


def test_strategies_of_a_source_stand_side_by_side():
    entries = [
        entry("HGAD, naive", "final", strategy="naive"),
        entry("HGAD, ewc", "final", strategy="ewc"),
        entry("HGAD, other", "final", strategy="naive", source="Others"),
    ]
    first, second = published_sections(RESULTS, entries)
    assert first.head[:3] == ["strategy", "image AUROC", "published"]
    assert first.lines == [
        [
            *("naive", "0.600 ± 0.141", "0.610", "0.700 ± 0.141", "0.710"),
            *("0.300 ± 0.000", "0.310", "0.300 ± 0.000", "–"),
        ],
        ["ewc", "–", "0.610", "–", "0.710", "–", "0.310", "–", "–"],
    ]
    assert "Them, 2024" in first.caption
    assert "Others" in second.caption


def test_lines_without_a_measured_number_can_be_left_out():
    entries = [
        entry("HGAD, naive", "final", strategy="naive"),
        entry("HGAD, ewc", "final", strategy="ewc"),
        entry("HGAD, joint", "joint", strategy="joint"),
        entry("C", "joint"),
    ]
    only = published_sections(RESULTS[:2], entries, only_measured=True)
    assert [[line[0] for line in section.lines] for section in only] == [["naive"]]
    assert len(published_sections(RESULTS[:2], entries)) == 3


@pytest.mark.parametrize("strategy", [None, "naive"])
def test_flipped_values_are_marked(strategy):
    flipped = entry("A", "final", strategy=strategy, flips_auroc=True)
    (section,) = published_sections(RESULTS, [flipped])
    assert section.lines[-1][0].endswith(" †")
    assert "† AUROC below 0.5 was flipped" in section.caption
    (section,) = published_sections(RESULTS, [{**flipped, "flips_auroc": False}])
    assert "†" not in str(section)


def test_nothing_published_gives_nothing():
    assert published_sections(RESULTS, []) == []


def test_values_task_by_task_stand_below_each_other():
    named = entry("A", "final", strategy="naive", image_auroc_by_experience=[0.4, 0.9])
    _, tasks = published_sections(RESULTS, [named])
    assert tasks.head == ["strategy", "", "task 1", "task 2"]
    assert tasks.lines == [
        ["naive", "image AUROC, here", "0.500", "0.800"],
        ["naive", "image AUROC, published", "0.400", "0.900"],
    ]
    assert "Them, 2024" in tasks.caption
    # of a stream of another length there is nothing to put beside
    longer = {**named, "image_auroc_by_experience": [0.4, 0.9, 0.7]}
    _, alone = published_sections(RESULTS, [longer])
    assert [line[1] for line in alone.lines] == ["image AUROC, published"]
