"""Rows of categories: grown, kept, and borrowed where there are none."""

import torch

from avalanche_ad.models.category_table import (
    known_rows,
    own_or_borrowed,
    with_rows,
)


def test_a_table_grows_and_keeps_what_it_has():
    table = with_rows(torch.zeros(0, 2), {1: torch.tensor([1.0, 2.0])}, 3)
    assert table.shape == (3, 2)
    assert table.isnan().all(1).tolist() == [True, False, True]
    grown = with_rows(table, {4: torch.tensor([3.0, 4.0])})
    assert grown.isnan().all(1).tolist() == [True, False, True, True, False]
    assert known_rows(grown).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert len(table) == 3  # the table given stays as it is


def test_a_category_without_a_row_borrows():
    table = with_rows(torch.zeros(0, 2, 1), {1: torch.tensor([[1.0], [2.0]])})
    category, borrowed = torch.tensor([1, 0, 7]), torch.tensor([[8.0], [9.0]])
    found = own_or_borrowed(table, category, borrowed)
    assert found[:, :, 0].tolist() == [[1.0, 2.0], [8.0, 9.0], [8.0, 9.0]]
