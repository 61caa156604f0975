"""Images that a table names."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_ad.datasets import check_dataset, open_dataset
from avalanche_ad.errors import DatasetError

TABLE = """\
Category, split, label, image, mask, operator
nut, train, ok, pics/0.png, , ann
nut, Train, Normal, pics/1.png, ,
nut, test, 0, pics/2.png, ,
nut, test, scratch, pics/3.png, masks/3.png; masks/3b.png,
nut, test, 1, pics/4.png, ,

axle, train, good, more/0.png, ,
axle, test, GOOD, more/1.png, ,
axle, test, bent, more/2.png, masks/3.png,
"""


@pytest.fixture
def root(tmp_path, image_file, mask_file):
    for name in ("pics/0", "pics/1", "pics/2", "pics/3", "pics/4"):
        image_file(tmp_path / f"{name}.png")
    for name in ("more/0", "more/1", "more/2"):
        image_file(tmp_path / f"{name}.png")
    mask_file(tmp_path / "masks/3.png")
    mask_file(tmp_path / "masks/3b.png")
    (tmp_path / "images.csv").write_text(TABLE)
    return tmp_path


def test_a_table(root):
    data = open_dataset("csv", root)
    assert data.categories == ("nut", "axle")  # as in the table
    rows = [
        (s.category, s.split, s.defect_type, s.path.name, len(s.mask_paths))
        for s in data.samples
    ]
    assert rows == [
        ("nut", "test", "1", "4.png", 0),
        ("nut", "test", "good", "2.png", 0),
        ("nut", "test", "scratch", "3.png", 2),
        ("nut", "train", "good", "0.png", 0),
        ("nut", "train", "good", "1.png", 0),
        ("axle", "test", "bent", "2.png", 1),
        ("axle", "test", "good", "1.png", 0),
        ("axle", "train", "good", "0.png", 0),
    ]
    assert open_dataset("csv", root, ["axle"]).categories == ("axle",)


def test_one_file_under_two_names(root):
    table = root / "images.csv"
    table.write_text(TABLE + "axle,test,good,pics/../more/0.png, ,\n")
    message = [str(p) for p in check_dataset("csv", root) if p.severity == "error"]
    assert len(message) == 1
    assert "pics/../more/0.png is in line" in message[0]


def test_paths_from_the_top_and_from_here(root, monkeypatch):
    monkeypatch.chdir(root)
    here = (root / "pics/0.png").as_posix()
    Path("images.csv").write_text(TABLE.replace("pics/0.png", here))
    assert len(open_dataset("csv", ".").samples) == 8
    assert not [p for p in check_dataset("csv", ".") if p.severity == "error"]


def test_a_table_of_another_name_and_absolute_paths(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("tables")
    names = ("pics/", "more/", "masks/")
    table = TABLE
    for name in names:
        table = table.replace(name, f"{root}/{name}")
    (other / "all.csv").write_text("\ufeff" + table, encoding="utf-8")
    data = open_dataset("csv", other, table="all.csv")
    assert data.samples == open_dataset("csv", root).samples


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Category", "part", "line 1: no column 'category'; expected category,split"),
        ("label,", "labels,", "line 1: no column 'label' .is it 'labels'..; exp"),
        ("Train", "dev", "line 3, column split: expected train or test, found 'dev'"),
        ("nut, Train", ", Train", "line 3, column category: is empty"),
        ("pics/2.png", "", "line 4, column image: is empty"),
        ("pics/2.png", "pics/9.png", "line 4, column image: no file .*pics/9.png"),
        ("pics/2.png", "pics/1.png", "line 4, column image: pics/1.png is in line 3"),
        ("masks/3b.png", "masks/9.png", "line 5, column mask: no file .*masks/9.png"),
        ("Normal", "bent", "line 3, column label: 'bent' in the train split, where"),
        (", ann", "", "line 2: 5 cells; expected 6, one a column"),
        ("axle, train", "axle, test", "images.csv: names no train image of 'axle'"),
        (TABLE, "", "line 1: no column 'category'.*found no column"),
        (TABLE, "category,split,label,image", "images.csv: names no image"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_place(root, old, new, words):
    table = root / "images.csv"
    table.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(DatasetError, match=words) as caught:
        open_dataset("csv", root)
    assert str(caught.value).startswith(str(table))
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_listed(root):
    table = root / "images.csv"
    table.write_text(TABLE.replace("Train", "dev").replace("pics/2", "pics/9"))
    errors = [p for p in check_dataset("csv", root) if p.severity == "error"]
    assert ["line 3" in errors[0].message, "line 4" in errors[1].message] == [True] * 2


@pytest.mark.parametrize(
    ("where", "options", "words"),
    [
        ("nowhere", {}, "nowhere: folder not found; expected a table images.csv"),
        ("images.csv", {}, "images.csv: expected the folder it is in, and the table"),
        (".", {"table": "all.csv"}, "all.csv: cannot be read: No such file"),
        ("masks", {"table": "3.png"}, "3.png: cannot be read: no table in UTF-8"),
    ],
)
def test_no_table(root, where, options, words):
    with pytest.raises(DatasetError, match=words):
        open_dataset("csv", root / where, **options)


def test_several_tables(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "images.csv").write_text(
        f"category,split,label,image\ncog,train,ok,{root}/pics/0.png\n"
        f"cog,test,ok,{root}/pics/2.png\n"
    )
    assert open_dataset("csv", [root, other]).categories == ("nut", "axle", "cog")
