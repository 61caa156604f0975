"""What every score is: some of a model's maps, combined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

__all__ = ["MapScore", "Score"]


class Score(ABC):
    """A score map of a model's named maps, and an image score of the score map.

    Higher is more anomalous. A score of one's own is a subclass in a file of its own:
    in this folder, or in another package as an entry point of ``avalanche_ad.scores``.
    A recipe names it as ``score_kind``.

    >>> class Smoothest(Score):
    ...     name = "mean"
    ...     maps = ("likelihood",)
    ...
    ...     def combine(self, maps):
    ...         return maps["likelihood"]
    ...
    ...     def image(self, score_map):
    ...         return score_map.flatten(1).mean(1)
    """

    name: ClassVar[str]
    maps: tuple[str, ...]
    """Names of the maps it is made of; a model that lacks one cannot be scored so."""

    @abstractmethod
    def combine(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return the score maps (N, H, W).

        :param maps: the maps (N, H, W) of :attr:`maps`, by name.
        """

    def image(self, score_map: Tensor) -> Tensor:
        """Return the image scores (N,), here the largest of each map.

        :param score_map: (N, H, W).
        """
        return score_map.flatten(1).amax(1)


class MapScore(Score):
    """One of a model's maps as it is.

    :param name: of the map.

    >>> MapScore("likelihood").maps
    ('likelihood',)
    """

    def __init__(self, name: str) -> None:
        self.maps = (name,)

    def combine(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return the map."""
        return maps[self.maps[0]]
