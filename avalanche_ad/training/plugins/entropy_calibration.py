"""Keep the uncertainty score of old categories when new ones are added."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.scoped_entropy import (
    ENTROPY_SCOPES,
    EntropyScope,
    ScopedEntropy,
)
from avalanche_ad.training.plugins.requirements import required

__all__ = ["EntropyCalibrationPlugin"]


class EntropyCalibrationPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Say over which categories the uncertainty of an image is taken.

    HGAD's uncertainty is the entropy of p(c | z) over all categories known. Each one
    that is added raises it, for normal images above all, although neither flow nor
    old centres moved: the expansion effect. Over the categories known when the image's
    own category was started it stays what it was, as long as the category inferred
    stays the same.

    The setting is part of the model's state, so a saved model scores alike.

    :param scope: ``"when_learned"``, ``"log_categories"`` (H / log C) or ``"known"``
        (HGAD's), see :attr:`ScopedEntropy.entropy`.
    :raises TrainingError: for another scope.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> plugin = EntropyCalibrationPlugin("log_categories")
    >>> plugin.before_training_exp(SimpleNamespace(model=model))
    >>> model.entropy
    'log_categories'
    """

    # a stray early image would count as the category learned
    needs_disjoint_categories = True

    def __init__(self, scope: EntropyScope = "when_learned") -> None:
        super().__init__()
        if scope not in ENTROPY_SCOPES:
            raise TrainingError(
                f"expected scope as one of {', '.join(ENTROPY_SCOPES)}, got {scope!r}"
            )
        self.scope: EntropyScope = scope

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the model's entropy.

        :raises TrainingError: for a model whose scores have no such entropy.
        """
        model = required(strategy.model, ScopedEntropy, self, "sets the entropy of")
        model.entropy = self.scope
