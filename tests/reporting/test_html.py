"""The report's page: complete, self-contained, the same each time."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from avalanche_ad.reporting.figures import steps_figure
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


def told(*results):
    """Return the rows of the table of settings that differ."""
    tables = Page(report_page("Own", results)).tables
    return [row for table in tables if table[0][0] == "setting" for row in table[1:]]


def test_settings_that_differ_are_told():
    assert told(*RESULTS) == []
    other = result("replay", 0, 0.8, training={"epochs": 8, "warmup": None})
    assert told(*RESULTS[:2], other, result("mir", 0, 0.7, training={"epochs": 2})) == [
        ["training.epochs", "8", "replay 0"],
        ["training.epochs", "2", "mir 0"],
        ["training.epochs", "4", "all others"],
        ["training.warmup", "null", "replay 0"],
        ["training.warmup", "–", "all others"],
    ]
    again = result("replay", 1, 0.8, training={"epochs": 8})
    assert told(
        RESULTS[0], again, result("replay", 0, 0.8, training={"epochs": 8})
    ) == [
        ["training.epochs", "4", "naive 0"],
        ["training.epochs", "8", "all others"],
    ]


def test_seeds_of_a_strategy_with_other_plugins_are_told():
    other = result("naive", 1, 0.6)
    other["config"]["strategy"]["plugins"][0]["mem_size"] = 20
    other["config"]["data"] = "elsewhere"
    assert told(RESULTS[0], other) == [
        ["data", "null", "naive 0"],
        ["data", '"elsewhere"', "naive 1"],
        ["naive: plugins.0.mem_size", "–", "naive 0"],
        ["naive: plugins.0.mem_size", "20", "naive 1"],
    ]


def test_settings_are_those_of_all_and_those_of_each():
    other = result("stream", 0, 0.8, size=64, training={"epochs": 8})
    same = result("naive", 0, 0.5, size=64)
    text = report_page("Own", [same, other])
    blocks = dict(
        re.findall(r"<summary>(.*?)</summary><pre>\n?(.*?)</pre>", text, re.S)
    )
    assert blocks["What all runs share"].split("\n")[:2] == ["data = null", "size = 64"]
    assert "training.epochs = 8" in blocks["stream"]
    assert "training.epochs = 4" in blocks["naive"]
    assert "size" not in blocks["naive"]


def test_a_record_may_lack_sections_and_values():
    bare = result("bare", 0, 0.5)
    for section in ("final", "forgetting", "per_category", "versions"):
        del bare[section]
    rows = [[None, None], [0.4, 0.7]]
    joint = {**result("joint", 0, 0.6), "matrix": dict.fromkeys(bare["matrix"], rows)}
    joint["forgetting"] = {"image_auroc": None, "pixel_auroc": None}
    table, *_ = Page(report_page("Own", [*RESULTS, bare, joint])).tables
    assert table[-1][:3] == ["bare", "1", "–"]
    nothing = {**bare, "matrix": dict.fromkeys(bare["matrix"], [[None] * 2] * 2)}
    assert "bare" in report_page("Own", [nothing])


def test_lines_over_the_stream_are_in_the_order_of_their_ends():
    steps = {"a": [0.9, 0.5], "b": [0.6, 0.7], "joint": [None, 0.6], "none": [None] * 2}
    figure = steps_figure(steps, "image AUROC")
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert list(lines) == ["b", "joint", "a"]
    assert lines["a"] == [0.9, 0.5]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["b", "joint", "a"]


def test_steps_weigh_tasks_by_their_categories():
    steps = mean_steps(RESULTS[:1], "image_auroc")
    assert steps == {"naive": [0.9, pytest.approx((2 * 0.6 + 0.5) / 3)]}
    joint = {**RESULTS[0], "matrix": {"image_auroc": [[None, None], [0.4, 0.7]]}}
    assert mean_steps([joint], "image_auroc") == {"naive": [None, pytest.approx(0.5)]}
    hole = {**RESULTS[0], "matrix": {"image_auroc": [[None, 0.2], [None, 0.7]]}}
    assert mean_steps([hole], "image_auroc") == {"naive": [None, pytest.approx(0.7)]}


def test_the_page_tells_runs_of_other_images():
    same, other = {"bolt": "a" * 32, "gear": "b" * 32}, {"bolt": "a" * 32, "gear": "c"}
    runs = [
        {**result("naive", 0, 0.5), "data": same},
        {**result("naive", 1, 0.5), "data": same},
        {**result("naive", 2, 0.5), "data": other},
        result("replay", 0, 0.5),
    ]
    *_, differ, origin = Page(report_page("Own", runs)).tables
    rows = {tuple(row[1:]) for row in differ if row[0] == "images of gear"}
    assert ("b" * 12, "all others") in rows
    assert ("c", "naive 2") in rows
    assert ("–", "replay 0") in rows
    made = {row[-1]: row[-2] for row in origin[1:]}
    assert made["replay 0"] == "–"
    assert len(made["naive 0, 1"]) == len(made["naive 2"]) == 12
    assert made["naive 0, 1"] != made["naive 2"]


def test_the_page_is_short_of_digests_where_all_are_the_same():
    runs = [{**run, "data": {"bolt": "a" * 32}} for run in RESULTS]
    assert "images of bolt" not in report_page("Own", runs)
