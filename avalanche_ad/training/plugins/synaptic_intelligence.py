"""Synaptic intelligence that also works where the parameters are on the CPU."""

from __future__ import annotations

from typing import Any

from avalanche.training.plugins import (
    SynapticIntelligencePlugin as _SynapticIntelligence,
)
from avalanche.training.utils import ParamData

__all__ = ["SynapticIntelligencePlugin"]


class SynapticIntelligencePlugin(_SynapticIntelligence):  # type: ignore[misc]
    """Avalanche's plugin, with copies of the parameters where it wants copies.

    Avalanche 0.6 notes parameters by ``param.detach().cpu()``, which on the CPU is no
    copy but the parameter itself: what it takes for the parameters of before a step
    moves with them, no path is ever measured, and the penalty is zero whatever
    ``si_lambda`` is. Here both notes, of before a step and of before the experience,
    are copied. On an accelerator the two plugins are the same.

    Takes the arguments of Avalanche's plugin.

    Source: Zenke et al., "Continual Learning Through Synaptic Intelligence", ICML
    2017, arXiv 1703.04200.

    >>> SynapticIntelligencePlugin(si_lambda=0.5).si_lambda
    [0.5]
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note the parameters of before the experience."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Note the parameters of before the step."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])


def _copy(noted: dict[str, ParamData]) -> None:
    for value in noted.values():
        value.data = value.data.clone()
