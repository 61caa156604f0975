"""The models as Avalanche dynamic modules: categories are added as they arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import ref

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models.dynamic_modules import DynamicModule
from avalanche.models.packnet import PackNetModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.hgad.flow_gmm import FlowGMM
from avalanche_ad.models.hgad.packnet_flow_gmm import PackNetFlowGMM
from avalanche_ad.models.latents import Latents, latents_of
from avalanche_ad.models.storage import load_model

__all__ = [
    "DYNAMIC_TYPES",
    "DynamicFeatureGMM",
    "DynamicFlowGMM",
    "DynamicPackNetFlowGMM",
    "category_names",
    "features_by_category",
    "load_dynamic_model",
]


def features_by_category(
    dataset: Dataset[Any], limit: int | None = None
) -> dict[int, Tensor]:
    """Gather packed training features by category.

    :param dataset: items (features, category, …) of a feature stream.
    :param limit: the first so many images of each category; all of them by default.
    :return: category index → (N, size).
    """
    found: dict[int, list[Tensor]] = {}
    for batch in DataLoader(dataset, batch_size=64):
        x, y = batch[0], batch[1]
        for category in sorted(set(y.tolist())):
            parts = found.setdefault(category, [])
            rows = (y == category).nonzero().flatten()
            if limit is not None:
                rows = rows[: limit - sum(map(len, parts))]
            parts.append(x[rows])
    return {category: torch.cat(found[category]) for category in sorted(found)}


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
    return load_model(folder, DYNAMIC_TYPES)


class _Features:
    """Remembers the mean latents of the last forward pass, and no graph.

    Those with a graph belong to the output they were computed with and go when it
    goes; copies and pickles remember nothing.
    """

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._latents: ref[Latents] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Features:
        return _Features()

    def __reduce__(self) -> tuple[type[_Features], tuple[()]]:
        return _Features, ()

    def note(self, output: Tensor) -> None:
        latents = latents_of(output)
        assert isinstance(latents, Latents)
        if output.requires_grad:
            self._mean, self._latents = None, ref(latents)
        else:
            self._mean, self._latents = _mean_latents(latents), None

    def read(self) -> Tensor | None:
        latents = self._latents() if self._latents else None
        return self._mean if latents is None else _mean_latents(latents)


def _mean_latents(latents: Latents) -> Tensor:
    return torch.cat([level.z.mean((1, 2)) for level in latents.levels], dim=1)


class DynamicFlowGMM(FlowGMM, DynamicModule):  # type: ignore[misc]
    """A :class:`FlowGMM` that Avalanche's strategies grow: give this one to a strategy.

    Takes the arguments of :class:`FlowGMM`. In training, ``adaptation`` starts the
    mixture groups of the experience's new categories; in evaluation it does nothing.

    >>> from avalanche.training.supervised import Naive
    >>> from avalanche_ad import FlowGMMLoss, anomaly_benchmark, make_optimizer
    >>> from avalanche_ad.datasets import SyntheticAD
    >>> from avalanche_ad.features import FilterBank
    >>> data = SyntheticAD(
    ...     80,
    ...     train_images=2,
    ...     test_normals=1,
    ...     test_anomalies=1,
    ...     categories=["carpet_weave", "tile_grid"],
    ... )
    >>> stream = anomaly_benchmark(
    ...     data, n_experiences=2, image_size=80, backbone=FilterBank([8])
    ... )
    >>> model = DynamicFlowGMM(stream.layout, couplings=1, condition_channels=4)
    >>> strategy = Naive(
    ...     model=model,
    ...     optimizer=make_optimizer(model),
    ...     criterion=FlowGMMLoss(),
    ...     evaluator=None,
    ... )
    >>> for experience in stream.train_stream:
    ...     _ = strategy.train(experience)
    ...     print(model.known_categories.tolist())
    [0]
    [0, 1]
    """

    _auto_adapt = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._features = _Features()

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`FlowGMM`."""
        output = super().forward(x)
        self._features.note(output)
        return output

    @property
    def features(self) -> Tensor | None:
        """Mean latents of the last forward pass, (N, sum of the levels' D).

        What Avalanche's feature distillation reads. ``None`` when the output of a pass
        with gradient is gone.
        """
        return self._features.read()

    @features.setter
    def features(self, value: None) -> None:
        self._features = _Features()

    def adaptation(self, experience: CLExperience) -> None:
        """Start the mixture groups of the categories that are new in an experience."""
        if not self.training:
            return
        arriving = sorted(experience.classes_in_this_experience)
        new = set(arriving) - set(self.known_categories.tolist())
        features = None
        if new and self.center_init == "data":
            features = {
                category: x.to(self.level_maximum.device)
                for category, x in features_by_category(experience.dataset).items()
            }
        self.add_categories(arriving, features)


@PackNetModule.register
class DynamicPackNetFlowGMM(PackNetFlowGMM, DynamicFlowGMM):
    """A :class:`PackNetFlowGMM` that Avalanche's ``PackNetPlugin`` prunes and freezes.

    Takes the arguments of :class:`FlowGMM`; ``adaptation`` starts the new categories
    for the task that is learned next. It is a ``PackNetModule`` by registration: it
    keeps track of its tasks itself and has none to activate, since evaluation lets
    every task's subset see every image.

    >>> from avalanche.training.supervised import Naive
    >>> from avalanche_ad import FlowGMMLoss, make_optimizer
    >>> from avalanche_ad.features import FeatureLayout
    >>> from avalanche_ad.training.plugins import PackNetPlugin
    >>> model = DynamicPackNetFlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> strategy = Naive(
    ...     model=model,
    ...     optimizer=make_optimizer(model),
    ...     criterion=FlowGMMLoss(),
    ...     train_epochs=4,
    ...     plugins=[PackNetPlugin()],
    ... )
    """


class DynamicFeatureGMM(FeatureGMM, DynamicModule):  # type: ignore[misc]
    """A :class:`FeatureGMM` that Avalanche's strategies can hold.

    It is fitted by :class:`~avalanche_ad.training.plugins.FitFeatureGMMPlugin`.

    >>> from avalanche.training.supervised import Naive
    >>> from avalanche_ad.features import FeatureLayout
    >>> from avalanche_ad.training.plugins import FitFeatureGMMPlugin
    >>> model = DynamicFeatureGMM(FeatureLayout(((4, 4, 8),)))
    >>> strategy = Naive(
    ...     model=model,
    ...     optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)]),
    ...     train_epochs=0,
    ...     plugins=[FitFeatureGMMPlugin()],
    ... )
    """

    _auto_adapt = True

    def adaptation(self, experience: CLExperience) -> None:
        """Do nothing: categories start when they are fitted."""


DYNAMIC_TYPES: dict[str, type[AnomalyModel]] = {
    "flow_gmm": DynamicFlowGMM,
    "packnet_flow_gmm": DynamicPackNetFlowGMM,
    "feature_gmm": DynamicFeatureGMM,
}
"""The classes that strategies grow, by the names that models are saved under."""
