"""Models as Avalanche's strategies grow them: categories are added as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models.dynamic_modules import DynamicModule
from avalanche.models.packnet import PackNetModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avalanche_ad.models import AnomalyModel, FeatureGMM, FlowGMM, PackNetFlowGMM
from avalanche_ad.models.batches import by_category
from avalanche_ad.models.storage import load_model

__all__ = [
    "Batches",
    "DynamicFeatureGMM",
    "DynamicFlowGMM",
    "DynamicPackNetFlowGMM",
    "category_names",
    "dynamic",
    "features_by_category",
    "load_dynamic_model",
]


class Batches:
    """The images of a data set with their categories, as often as they are asked for.

    :param dataset: items (features, category, …) of a feature stream.
    :param device: where they are wanted.

    >>> [(x, y)] = Batches([(torch.ones(3), 0), (torch.zeros(3), 1)])
    >>> x.shape, y
    (torch.Size([2, 3]), tensor([0, 1]))
    """

    def __init__(
        self, dataset: Dataset[Any], device: torch.device | str = "cpu"
    ) -> None:
        self._loader = DataLoader(dataset, batch_size=64)
        self._device = device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            yield batch[0].to(self._device), batch[1].to(self._device)


def features_by_category(
    dataset: Dataset[Any], limit: int | None = None
) -> dict[int, Tensor]:
    """Gather training features by category.

    :param dataset: items (features, category, …) of a feature stream.
    :param limit: the first so many images of each category; all of them by default.
    :return: category index → (N, size).
    """
    return by_category(Batches(dataset), limit)


def category_names(dataset: Any) -> dict[int, str]:
    """Return the names of a data set's categories by index, as far as it has them.

    :param dataset: Avalanche's, of an :class:`AnomalyBenchmark` or another.
    """
    names = getattr(dataset, "category_name", None)
    return {} if names is None else dict(zip(dataset.targets, names, strict=True))


def load_dynamic_model(folder: Path) -> tuple[AnomalyModel, dict[str, Any]]:
    """Read a saved model back as strategies grow it, see :func:`load_model`.

    A stream that goes on from it needs ``learned=description["experiences"]``.

    :param folder: of a finished run.
    :return: the model and its description.
    :raises ResultsError: when a file is missing, damaged or of another version.
    """
    return load_model(folder, dynamic)


class _Grows(DynamicModule):  # type: ignore[misc]
    """What makes a model grow when an experience arrives."""

    _auto_adapt = True
    plain: ClassVar[type[AnomalyModel]]

    def adaptation(self, experience: CLExperience) -> None:
        """Start the categories that are new in an experience, in training alone."""
        assert isinstance(self, AnomalyModel)
        if not self.training:
            return
        arriving = sorted(experience.classes_in_this_experience)
        new = set(arriving) - set(self.known_categories.tolist())
        features = None
        if new and self.starts_from_features:
            features = by_category(Batches(experience.dataset, self.device))
        self.add_categories(arriving, features)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle by the class that was made dynamic, which has a place."""
        return _blank, (self.plain,), self.__dict__


def _blank(plain: type[AnomalyModel]) -> AnomalyModel:
    made = dynamic(plain)
    model: AnomalyModel = made.__new__(made)
    return model


@cache
def dynamic(plain: type[AnomalyModel]) -> Any:
    """Return a model's class as Avalanche's strategies grow it.

    It takes the arguments of the class given. In training, ``adaptation`` starts the
    categories that are new in an experience; in evaluation it does nothing. A model
    with ``prune`` and ``freeze_pruned`` counts as a ``PackNetModule``, which
    Avalanche's ``PackNetPlugin`` asks for: it keeps track of its tasks itself.

    :param plain: any :class:`AnomalyModel`, also of another package.

    >>> from avalanche.training.supervised import Naive
    >>> from avalanche_ad import FlowGMMLoss, anomaly_benchmark, make_optimizer
    >>> from avalanche_ad.datasets import SyntheticAD
    >>> from avalanche_ad.features import FilterBank
    >>> counts = {"train_images": 2, "test_normals": 1, "test_anomalies": 1}
    >>> data = SyntheticAD(80, categories=["bolt", "gear"], **counts)
    >>> options = {"image_size": 80, "backbone": FilterBank([8])}
    >>> stream = anomaly_benchmark(data, n_experiences=2, **options)
    >>> model = dynamic(FlowGMM)(stream.layout, couplings=1, condition_channels=4)
    >>> parts = {"optimizer": make_optimizer(model), "criterion": FlowGMMLoss()}
    >>> strategy = Naive(model=model, evaluator=None, **parts)
    >>> for experience in stream.train_stream:
    ...     _ = strategy.train(experience)
    ...     print(model.known_categories.tolist())
    [0]
    [0, 1]
    """
    if issubclass(plain, DynamicModule):
        return plain
    doc = f"A :class:`{plain.__name__}` as strategies grow it, see :func:`dynamic`."
    made = type(
        f"Dynamic{plain.__name__}",
        (plain, _Grows),
        {"__doc__": doc, "__module__": __name__, "plain": plain},
    )
    if hasattr(plain, "prune") and hasattr(plain, "freeze_pruned"):
        PackNetModule.register(made)
    return made


DynamicFlowGMM = dynamic(FlowGMM)
DynamicPackNetFlowGMM = dynamic(PackNetFlowGMM)
DynamicFeatureGMM = dynamic(FeatureGMM)
