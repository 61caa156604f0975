"""The report's page: complete, self-contained, the same each time."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from avalanche_ad.reporting.html import report_page
from avalanche_ad.reporting.matrices import mean_steps


def result(strategy, seed, final, tasks=(("bolt", "nut"), ("gear",)), **config):
    rows = [[0.9, 0.5], [0.6, final]] if len(tasks) > 1 else [[final]]
    values = {"image_auroc": final, "pixel_auroc": None}
    return {
        "benchmark": "own",
        "strategy": strategy,
        "seed": seed,
        "categories": [list(task) for task in tasks],
        "matrix": {"image_auroc": rows, "pixel_auroc": rows},
        "per_category": {
            "image_auroc": {name: final for task in tasks for name in task},
            "pixel_auroc": {},
        },
        "final": values,
        "step_mean": {},
        "forgetting": values,
        "config": {
            "benchmark": {"training": {"epochs": 4}, **config},
            "strategy": {"plugins": [{"type": "<b>&"}]},
        },
        "versions": {"torch": "2.15"},
        "git": None,
    }


class Page(HTMLParser):
    """Collects the tables, the pictures and everything that points outside."""

    void = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.pictures, self.outside = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in self.void:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag == "img":
            self.pictures.append(found["src"])
            assert found["alt"]
        self.outside += [tag for key in ("href", "src") if "//" in found.get(key, "")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1].append(data)


RESULTS = [
    result("naive", 0, 0.5),
    result("naive", 1, 0.6),
    result("replay", 0, 0.8),
    result("replay", 1, 0.7),
]


def test_the_page_holds_all_it_needs():
    text = report_page("Own", RESULTS)
    page = Page(text)
    assert not page.outside
    assert "<script" not in text
    assert "url(" not in text
    for picture in page.pictures:
        kind, _, content = picture.partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    # dots of values and of forgetting; steps and matrices of two metrics
    assert len(page.pictures) == 6


def test_the_best_strategy_comes_first():
    table, *_ = Page(report_page("Own", RESULTS)).tables
    assert [row[0] for row in table] == ["strategy", "replay", "naive"]
    assert table[1][:3] == ["replay", "2", "0.750 ± 0.071"]


def test_undefined_values_are_shown_as_such():
    table, *_ = Page(report_page("Own", RESULTS)).tables
    assert table[1][table[0].index("pixel AUROC")] == "–"


def test_the_page_is_the_same_each_time():
    assert report_page("Own", RESULTS) == report_page("Own", RESULTS)


def test_a_stream_of_one_task_has_no_forgetting():
    one = [result("naive", 0, 0.5, tasks=(("bolt",),))]
    assert len(Page(report_page("Own", one)).pictures) == 1


def test_what_recipes_say_is_not_read_as_html():
    text = report_page("<i>Own</i>", RESULTS)
    assert "<i>" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.parametrize("differ", [True, False])
def test_settings_that_differ_are_told(differ):
    other = {"training": {"epochs": 8}} if differ else {}
    page = Page(report_page("Own", [*RESULTS[:2], result("replay", 0, 0.8, **other)]))
    told = [
        row for table in page.tables for row in table if row[0] == "training.epochs"
    ]
    expected = [
        ["training.epochs", "8", "replay 0"],
        ["training.epochs", "4", "naive 0, naive 1"],
    ]
    assert told == (expected if differ else [])


def test_steps_weigh_tasks_by_their_categories():
    steps = mean_steps(RESULTS[:1], "image_auroc")
    assert steps == {"naive": [0.9, pytest.approx((2 * 0.6 + 0.5) / 3)]}
    joint = {**RESULTS[0], "matrix": {"image_auroc": [[None, None], [0.4, 0.7]]}}
    assert mean_steps([joint], "image_auroc") == {"naive": [None, pytest.approx(0.5)]}
