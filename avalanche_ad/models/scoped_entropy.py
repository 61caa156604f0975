"""Over which categories the uncertainty of an image is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from avalanche_ad.models.density_model import DensityModel
from avalanche_ad.models.loading import replaced
from avalanche_ad.models.settings import settings_of, settings_tensor

__all__ = ["ENTROPY_SCOPES", "EntropyScope", "ScopedEntropy"]

EntropyScope = Literal["known", "when_learned", "log_categories"]
ENTROPY_SCOPES: tuple[EntropyScope, ...] = get_args(EntropyScope)


class ScopedEntropy(DensityModel):
    """A density model that can be told which categories an entropy is over.

    :param arguments: see :class:`DensityModel`.

    ``known_when_learned`` (C, C) says which categories were known when each was
    started, its own experience's and earlier ones.

    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((2, 2, 4),)), couplings=2, condition_channels=4)
    >>> model.add_categories([0])
    >>> model.add_categories([1])
    >>> model.entropy = "when_learned"
    >>> model.alternatives(torch.tensor([0, 1]))
    tensor([1, 2])
    """

    known_when_learned: Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._entropy: EntropyScope = "known"
        self.register_buffer("known_when_learned", torch.zeros(0, 0, dtype=torch.bool))

    @property
    def entropy(self) -> EntropyScope:
        """Which entropy the uncertainty is made of; part of the saved state.

        ``"known"``: over all categories known, as HGAD's. It rises with every category
        that is added. ``"log_categories"``: the same, divided by log C.
        ``"when_learned"``: over those known when the image's category was started, its
        own experience's and earlier ones, so that later ones leave it alone.
        """
        return self._entropy

    @entropy.setter
    def entropy(self, scope: EntropyScope) -> None:
        if scope not in ENTROPY_SCOPES:
            raise ValueError(
                f"expected entropy as one of {', '.join(ENTROPY_SCOPES)}, got {scope!r}"
            )
        self._entropy = scope

    def alternatives(self, category: Tensor) -> Tensor:
        """Return over how many categories each image's entropy is taken, (N,)."""
        if self.entropy == "when_learned":
            return self.known_when_learned[category].sum(1)
        return super().alternatives(category)

    def _make_entropy_room(self, num_categories: int) -> None:
        """Let there be a row and a column for so many categories."""
        new = num_categories - len(self.known_when_learned)
        if new > 0:
            self.known_when_learned = F.pad(self.known_when_learned, (0, new, 0, new))

    def get_extra_state(self) -> Tensor:
        """Return the entropy's scope, for torch to keep with the state."""
        return settings_tensor({"entropy": self._entropy})

    def set_extra_state(self, state: Tensor) -> None:
        """Take the entropy's scope of a state."""
        found = settings_of(state)
        if not isinstance(found, dict) or set(found) != {"entropy"}:
            raise ValueError(f"expected the entropy's scope, got {found!r}")
        self.entropy = found["entropy"]

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has, see :class:`LoadsWhole`."""
        seen = state.get("known_when_learned")
        if seen is not None and seen.shape != self.known_when_learned.shape:
            replaced(self, "known_when_learned", torch.Size([len(seen)] * 2))
        super().make_room(state)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state that contradicts itself, see :class:`LoadsWhole`."""
        super().check_state(state)
        if len(self.known_when_learned) != self.num_categories:
            raise ValueError(
                f"known_when_learned is of {len(self.known_when_learned)} categories, "
                f"the mixtures of {self.num_categories}"
            )
