"""What a strategy keeps of old data, in MB."""

from __future__ import annotations

from typing import Any

import numpy as np
from avalanche.training.supervised import Cumulative, JointTraining

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.models import FeatureGMM

__all__ = ["memory_mb"]


def memory_mb(
    strategy: Any,  # noqa: ANN401
    benchmark: AnomalyBenchmark,
    dtype: str,
) -> dict[str, float]:
    """Return the size of kept exemplars and of kept statistics at the end of a stream.

    Exemplars are images' packed features as the cache holds them: those in the storage
    policies of the strategy's plugins, or every earlier image under cumulative and
    joint training. Statistics are the mixtures of a :class:`FeatureGMM`.

    :param strategy: the strategy after its last experience.
    :param benchmark: its feature stream.
    :param dtype: type of number in the cache.
    """
    assert benchmark.layout is not None
    if isinstance(strategy, (Cumulative, JointTraining)):
        exemplars = sum(len(e.dataset) for e in list(benchmark.train_stream)[:-1])
    else:
        exemplars = sum(
            len(plugin.storage_policy.buffer)
            for plugin in strategy.plugins
            if hasattr(plugin, "storage_policy")
        )
    statistics = 0
    if isinstance(strategy.model, FeatureGMM):
        statistics = sum(
            buffer.numel() * buffer.element_size()
            for buffer in strategy.model.buffers()
        )
    per_image = benchmark.layout.size * np.dtype(dtype).itemsize
    return {
        "exemplars": round(exemplars * per_image / 1e6, 3),
        "statistics": round(statistics / 1e6, 3),
    }
