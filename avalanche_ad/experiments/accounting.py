"""What a strategy keeps between experiences, in MB."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience, CLScenario, CLStream
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.evaluation import PluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.supervised import Cumulative, JointTraining
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn
from torch.optim import Optimizer

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.benchmarks.items import FeatureSource
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.features import Backbone
from avalanche_ad.models.memory import KINDS, kept_tensors
from avalanche_ad.training.plugins.feature_statistics_replay import GaussianStatistics

__all__ = ["KINDS", "memory_bytes", "memory_mb"]

# of a strategy: what lasts for a step or an experience
_PASSING = {
    "adapted_dataset",
    "current_eval_stream",
    "_eval_streams",
    "dataloader",
    "dataset",  # Cumulative's: counted without the last experience
    "experience",
    "loss",
    "mb_output",
    "mbatch",
}
_NOT_FOLLOWED = (
    *(str, bytes, int, float, complex, type(None)),
    *(type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, weakref.ref),
    *(torch.dtype, torch.device, torch.Generator, np.random.Generator),
    *(Optimizer, EvaluationPlugin, PluginMetric, BaseLogger, RunProgress, Backbone),
    *(CLExperience, CLStream, CLScenario),
)


def memory_mb(
    strategy: Any,
    benchmark: AnomalyBenchmark,
    dtype: str,
) -> dict[str, float]:
    """Return :func:`memory_bytes` in MB (10⁶ bytes)."""
    sizes = memory_bytes(strategy, benchmark, dtype)
    return {kind: round(size / 1e6, 3) for kind, size in sizes.items()}


def memory_bytes(
    strategy: Any,
    benchmark: AnomalyBenchmark,
    dtype: str,
) -> dict[str, int]:
    """Count what is kept at the end of a stream by walking the strategy's objects.

    Followed are the strategy's model, its plugins and its own attributes, through
    dictionaries, sequences and the attributes of objects; of a module its parameters
    and buffers. Every storage of a tensor counts once, in full, whoever refers to it.

    - ``exemplars``: images of the stream that a data set kept by the strategy or a
      plugin refers to (a storage policy's buffer, A-GEM's buffers), each once, with the
      bytes that its features take in the cache; under cumulative and joint
      training all but the last experience's. With their true bytes: data sets of
      other images than the stream's (a materialized buffer), tensors kept beside the
      images (DER's logits), the rest of a storage policy, and tensors with a row of
      features per image (GEM's memory).
    - ``statistics``: what a model keeps of categories in the place of images, such as
      the mixtures of a :class:`FeatureGMM`.
    - ``parameters``: every other tensor and array: parameters and buffers of the
      trained model, copies of it (LwF's teacher), importances and saved parameters
      (EWC, SI, MAS, RWalk), and gradients that a plugin leaves lying (GEM).

    An object whose attribute ``memory_kind`` is one of these words has all that hangs
    on it counted there, for example a plugin with Gaussians of the features. One with a
    method ``memory``, as every model has, says itself what it keeps.

    Not counted: what the learner makes anew of the rest after every experience
    (mixtures that follow from statistics: they are saved with the model, which scores
    by them, but need not be kept to learn on), gradients and
    optimizer state, metrics and loggers, the minibatch, the current experience, frozen
    backbones, plain numbers and text.

    :param strategy: the strategy after its last experience.
    :param benchmark: its feature stream.
    :param dtype: type of number in the cache.
    """
    assert benchmark.layout is not None
    per_image = benchmark.layout.size * np.dtype(dtype).itemsize
    count = _Count(benchmark.layout.size)
    train = [experience.dataset for experience in benchmark.train_stream]
    count.follow(strategy.model, "parameters")
    if isinstance(strategy, (Cumulative, JointTraining)):
        for dataset in train[:-1]:
            count.follow(dataset, "exemplars")
    count.follow(strategy, "parameters")
    count.sizes["exemplars"] += len(count.images) * per_image
    return count.sizes


class _Count:
    """Bytes by kind, and images of the stream, of all that was followed.

    :param row: numbers of one image's features.
    """

    def __init__(self, row: int) -> None:
        self.sizes = dict.fromkeys(KINDS, 0)
        self.images: set[tuple[Path, int]] = set()
        self._row = row
        self._met: set[int] = set()
        self._storages: set[tuple[torch.device, int]] = set()

    def follow(self, root: object, kind: str) -> None:
        """Count an object and all that hangs on it."""
        left: list[tuple[object, str]] = [(root, kind)]
        while left:
            thing, kind = left.pop()
            if isinstance(thing, _NOT_FOLLOWED) or id(thing) in self._met:
                continue
            self._met.add(id(thing))
            if isinstance(thing, Tensor):
                self._add_tensor(thing, kind)
            elif isinstance(thing, np.ndarray):
                # a map of a file takes no memory
                if not isinstance(thing, np.memmap):
                    self.sizes[kind] += thing.nbytes
            elif isinstance(thing, AvalancheDataset):
                for leaf, index in _leaves(thing._flat_data):
                    source = getattr(leaf, "source", None)
                    if isinstance(source, FeatureSource):
                        # by file and row, for a resumed run has copies of the stream
                        features, row = source.rows[index]
                        self.images.add((features.path, row))
                    else:
                        left.append((leaf, "exemplars"))
                beside = thing._data_attributes.values()
                left += [(attribute.data, "exemplars") for attribute in beside]
            else:
                if isinstance(thing, ExemplarsBuffer):
                    kind = "exemplars"
                if isinstance(thing, GaussianStatistics):
                    kind = "statistics"
                declared = getattr(thing, "memory_kind", None)
                kind = declared if declared in KINDS else kind
                if isinstance(thing, nn.Module):
                    left += _tensors(thing, kind)
                else:
                    left += [(part, kind) for part in _parts(thing)]

    def _add_tensor(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key = (tensor.device, storage.data_ptr())
        if key in self._storages:
            return
        self._storages.add(key)
        if kind == "parameters" and tensor.shape[-1:] == (self._row,):
            kind = "exemplars"
        self.sizes[kind] += storage.nbytes()


def _tensors(module: nn.Module, kind: str) -> list[tuple[object, str]]:
    """Return a module's tensors, each with the kind of memory it is."""
    found = kept_tensors(module, kind)
    return [(tensor, name) for name, tensors in found.items() for tensor in tensors]


def _leaves(flat: FlatData[Any]) -> Iterable[tuple[object, int]]:
    """Yield the innermost data set and the index there of every item."""
    for item in range(len(flat)):
        which, index = flat._get_idx(item)
        part: Any = flat._datasets[which]
        while isinstance(part, (AvalancheDataset, FlatData)):
            inner = part._flat_data if isinstance(part, AvalancheDataset) else part
            which, index = inner._get_idx(index)
            part = inner._datasets[which]
        yield part, index


def _parts(thing: object) -> Iterable[object]:
    """Return what an object refers to."""
    if isinstance(thing, dict):
        return thing.values()
    if isinstance(thing, (list, tuple, set, frozenset, deque)):
        return thing
    if isinstance(thing, FlatData):
        kept: list[object] = thing._datasets  # but not the indices into them
        return kept
    attributes: dict[str, object] = dict(getattr(thing, "__dict__", {}))
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                attributes[name] = getattr(thing, name)
    if isinstance(thing, BaseTemplate):
        return [part for name, part in attributes.items() if name not in _PASSING]
    return attributes.values()
