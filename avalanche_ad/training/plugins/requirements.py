"""What a plugin asks of the model it works on."""

from __future__ import annotations

from typing import TypeVar

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.registry import MODELS

__all__ = ["check_positions", "required"]

T = TypeVar("T")


def check_positions(kernel: int, plugin: type) -> None:
    """Refuse a plugin that draws single positions, for a flow that maps whole maps.

    :param kernel: positions a side that the flow sees.
    :param plugin: the plugin's class.
    :raises TrainingError: when the two cannot go together.
    """
    if kernel > 1 and getattr(plugin, "needs_positions", False):
        raise TrainingError(
            f"{plugin.__name__} draws positions one by one, and with model.kernel = "
            f"{kernel} a flow maps them with their neighbours: set model.kernel = 1, "
            "or take a strategy without it, such as replay"
        )


def required(model: object, kind: type[T], plugin: object, does: str) -> T:
    """Return a model if it is of the kind that a plugin works on.

    :param model: the strategy's.
    :param kind: a class of ``avalanche_ad.models``, such as :class:`FlowModel`.
    :param plugin: that asks for it.
    :param does: what it does with such a model.
    :raises TrainingError: when it is of another, naming models that would do.
    """
    if isinstance(model, kind):
        return model
    every = [made for made in MODELS.own.values() if issubclass(made, kind)]
    fitting = [
        made.kind
        for made in every
        if not any(issubclass(made, other) and made is not other for other in every)
    ]
    raise TrainingError(
        f"{type(plugin).__name__} {does} a {kind.__name__}, got a "
        f"{type(model).__name__}: use it with the {' or '.join(fitting)} model"
    )
