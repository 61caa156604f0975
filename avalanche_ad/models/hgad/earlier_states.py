"""States that earlier versions of the flow-GMM saved."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from avalanche_ad.models.alignment.mixtures import ALIGNED_COVARIANCES
from avalanche_ad.models.scoped_entropy import ENTROPY_SCOPES

if TYPE_CHECKING:
    from avalanche_ad.models.hgad.flow_gmm import FlowGMM

__all__ = ["updated"]

_MOVED = {"statistics.": "alignment.statistics.", "aligned.": "alignment.mixtures."}


def updated(model: FlowGMM, state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of an earlier version as this one has it.

    What is the alignment's lay beside it; the entropy's scope and the way mixtures
    follow from statistics were numbers: ``entropy_code`` an index, ``derivation``
    samples, index of the covariance and seed, -1 for other mixtures. With a derivation
    the mixtures were left out, and are made here.

    :raises ValueError: when it cannot be told how.
    """
    if "entropy_code" not in state:
        return state
    state = dict(state)
    code, how = int(state.pop("entropy_code")), state.pop("derivation", None)
    if not 0 <= code < len(ENTROPY_SCOPES):
        raise ValueError(
            f"entropy_code: expected 0 to {len(ENTROPY_SCOPES) - 1}, got {code}"
        )
    for name in list(state):
        for old, new in _MOVED.items():
            if name.startswith(old):
                state[new + name.removeprefix(old)] = state.pop(name)
    state["_extra_state"] = {"entropy": ENTROPY_SCOPES[code]}
    state["alignment._extra_state"] = None
    if how is None or bool((how == -1).all()):
        return state
    twin = copy.deepcopy(model)
    twin.load_state_dict(state)
    samples, form, seed = (int(value) for value in how.tolist())
    covariances = dict(enumerate(ALIGNED_COVARIANCES))
    if twin.alignment.statistics is None or samples < 1 or form not in covariances:
        raise ValueError(
            "its aligned mixtures follow from statistics, but it says not how "
            f"(derivation {how.tolist()})"
        )
    twin.align_to_statistics(samples, covariances[form], seed)
    return twin.state_dict()
