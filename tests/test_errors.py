"""What messages share."""

from __future__ import annotations

import pytest

from avalanche_ad.errors import counted


@pytest.mark.parametrize(
    ("count", "nouns", "said"),
    [
        (1, ["category"], "1 category"),
        (0, ["category"], "0 categories"),
        (2, ["test image"], "2 test images"),
        (3, ["key"], "3 keys"),
        (1, ["axis", "axes"], "1 axis"),
        (2, ["axis", "axes"], "2 axes"),
    ],
)
def test_a_noun_goes_with_its_number(count, nouns, said):
    assert counted(count, *nouns) == said
