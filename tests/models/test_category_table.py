"""Rows of categories: grown, kept, loaded, and borrowed where there are none."""

import copy
import pickle

import pytest
import torch
from torch import nn

from avalanche_ad.models.category_table import (
    CategoryTable,
    known_rows,
    own_or_borrowed,
    with_rows,
)


class Numbered(CategoryTable):
    """Has a parameter, flags, indices, and rows that are made of their category."""

    def __init__(self, known=True):
        super().__init__(known)
        self.add_table("weight", 2, trained=True)
        self.add_table("task", blank=-1, dtype=torch.long)
        self.add_table("own", 3, blank=torch.nan)

    def blank_rows(self, name, categories):
        if name == "weight":
            return torch.tensor([[c, 10.0 * c] for c in categories])
        return super().blank_rows(name, categories)


def test_a_table_grows_and_keeps_what_it_has():
    table = with_rows(torch.zeros(0, 2), {1: torch.tensor([1.0, 2.0])}, 3)
    assert table.shape == (3, 2)
    assert table.isnan().all(1).tolist() == [True, False, True]
    grown = with_rows(table, {4: torch.tensor([3.0, 4.0])})
    assert grown.isnan().all(1).tolist() == [True, False, True, True, False]
    assert known_rows(grown).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert len(table) == 3  # the table given stays as it is
    assert with_rows(table, {}).data_ptr() != table.data_ptr()


def test_a_category_without_a_row_borrows():
    table = with_rows(torch.zeros(0, 2, 1), {1: torch.tensor([[1.0], [2.0]])})
    category, borrowed = torch.tensor([1, 0, 7]), torch.tensor([[8.0], [9.0]])
    found = own_or_borrowed(table, category, borrowed)
    assert found[:, :, 0].tolist() == [[1.0, 2.0], [8.0, 9.0], [8.0, 9.0]]


def test_all_tables_grow_together_with_their_blank_rows():
    tables = Numbered()
    tables.resize(1)
    with torch.no_grad():
        tables.weight += 5
    tables.weight.requires_grad_(False)
    tables.resize(3)
    tables.resize(2)
    assert tables.num_categories == 3
    assert {len(value) for value in tables.state_dict().values()} == {3}
    assert tables.weight.tolist() == [[5, 5], [1, 10], [2, 20]]
    assert isinstance(tables.weight, nn.Parameter)
    assert not tables.weight.requires_grad
    assert tables.task.tolist() == [-1] * 3
    assert bool(tables.own.isnan().all())
    assert not len(tables.categories)
    tables.add_table("late", blank=7)
    assert tables.late.tolist() == [7] * 3


@pytest.mark.parametrize("known", [True, False])
def test_a_category_is_known_by_its_rows(known):
    tables = Numbered(known)
    tables.set_rows(2, own=torch.ones(3))
    tables.set_rows(0, own=torch.ones(3).double(), task=torch.tensor(4))
    assert tables.categories.tolist() == [0, 2]
    assert tables.task.tolist() == [4, -1, -1]
    assert ("known" in tables.state_dict()) == known


def test_an_empty_one_has_no_category():
    tables = Numbered(known=False)
    assert tables.num_categories == 0
    assert tables.categories.tolist() == []
    assert CategoryTable(known=False).num_categories == 0


@pytest.mark.parametrize("room", [0, 2, 9])
@pytest.mark.parametrize("known", [True, False])
def test_a_state_of_any_length_loads_wherever_it_lies(room, known):
    saved, other = Numbered(known), Numbered(known)
    saved.set_rows(3, own=torch.ones(3))
    other.resize(room)
    nn.ModuleList([nn.Linear(1, 1), other]).load_state_dict(
        nn.ModuleList([nn.Linear(1, 1), saved]).state_dict()
    )
    assert other.num_categories == 4
    assert other.categories.tolist() == [3]
    assert other.weight.tolist() == saved.weight.tolist()


def test_tables_of_different_lengths_are_refused():
    tables = Numbered()
    tables.resize(3)
    state = tables.state_dict()
    with pytest.raises(RuntimeError, match="different lengths .*task 2"):
        tables.load_state_dict(state | {"task": state["task"][:2]})
    assert len(tables.task) == 3


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_a_copy_grows_too(copied):
    tables = Numbered()
    tables.resize(1)
    twin = copied(tables)
    twin.resize(2)
    assert (tables.num_categories, twin.num_categories) == (1, 2)
    assert twin.weight.tolist() == [[0, 0], [1, 10]]
