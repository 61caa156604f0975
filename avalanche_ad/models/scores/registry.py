"""The scores by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from avalanche_ad.errors import RecipeError
from avalanche_ad.models.scores.score import MapScore, Score
from avalanche_ad.registry import Registry, unknown

__all__ = ["SCORES", "score_named"]

SCORES: Registry[Score] = Registry(
    "score", "avalanche_ad.models.scores.score.Score", "avalanche_ad.models.scores"
)
"""Those that combine maps; each map of a model is a score of the same name too."""


@lru_cache(maxsize=64)
def score_named(name: str, maps: Sequence[str], folder: Path | None = None) -> Score:
    """Return the score of a name for a model that offers some maps.

    :param name: one of the maps, or a name or dotted path that :data:`SCORES` knows.
    :param maps: names of the model's maps, a tuple.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: for an unknown score, or one of other maps than the model's.

    >>> score_named("product", ("likelihood", "uncertainty")).name
    'product'
    """
    if name in maps:
        return MapScore(name)
    if "." not in name and name not in SCORES.names():
        fitting = [one for one in SCORES.own.values() if set(one.maps) <= set(maps)]
        raise RecipeError(
            unknown(
                "score", name, (*maps, *(one.name for one in fitting), *SCORES.others)
            )
        )
    score = SCORES.find(name, folder)()
    if missing := [one for one in score.maps if one not in maps]:
        raise RecipeError(
            f"score {name!r} is made of {' and '.join(score.maps)}, and the model has "
            f"no {missing[0]}: it offers {', '.join(maps)}"
        )
    return score
