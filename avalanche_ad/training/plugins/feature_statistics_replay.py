"""Replay of features that are drawn from a Gaussian of each class, not stored."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = [
    "FeatureStatisticsReplayPlugin",
    "GaussianStatistics",
    "update_statistics",
]


class GaussianStatistics:
    """
    A Gaussian of a class's features: mean, principal modes, and what is left.

    A sample is

        x = μ + Σ_k a_k u_k + d ⊙ ε,   a_k, ε ~ N(0, 1),

    where u_k are the first principal components of the features, as long as
    their deviation, and d is the deviation of what they leave of each feature.
    With more modes than images the covariance is that of the images. It is
    updated with further images as if all had come at once, but for modes that
    were dropped.

    :param rank: number of modes kept, 0 for independent features.

    >>> statistics = GaussianStatistics(rank=2)
    >>> x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    >>> statistics.update(x[:4])
    >>> statistics.update(x[4:])
    >>> torch.allclose(statistics.mean, x.mean(0), atol=1e-6)
    True
    >>> statistics.sample(3).shape
    torch.Size([3, 4])
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.count = 0
        self.mean: Optional[Tensor] = None
        self.modes: Optional[Tensor] = None
        self.variance: Optional[Tensor] = None

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """
        Take further features of the class.

        :param x: features (N, ...).
        """
        if self.mean is None:
            self.mean = torch.zeros_like(x[0])
            self.variance = torch.zeros_like(x[0])
            self.modes = x.new_zeros(0, *x.shape[1:])
        assert self.modes is not None
        assert self.variance is not None
        total = self.count + len(x)
        mean = (self.count * self.mean + x.sum(0)) / total
        shift = (self.count**0.5) * (self.mean - mean)
        rows = torch.cat([self.count**0.5 * self.modes, shift[None], x - mean])
        scatter = self.count * self.variance + shift**2 + ((x - mean) ** 2).sum(0)
        if self.rank:
            _, sizes, axes = torch.linalg.svd(rows.flatten(1), full_matrices=False)
            modes = sizes[: self.rank, None] * axes[: self.rank]
            self.modes = (modes / total**0.5).view(-1, *x.shape[1:])
        self.count, self.mean, self.variance = total, mean, scatter / total

    def sample(self, count: int) -> Tensor:
        """
        Draw features (count, ...), on the device of the statistics.

        :param count: number of samples.
        """
        assert self.mean is not None
        assert self.modes is not None
        assert self.variance is not None
        left = (self.variance - (self.modes**2).sum(0)).clamp(min=0).sqrt()
        noise = torch.randn(count, *self.mean.shape).to(left)
        loads = torch.randn(count, len(self.modes)).to(left)
        modes: Tensor = torch.tensordot(loads, self.modes, 1)
        return self.mean + modes + left * noise


class FeatureStatisticsReplayPlugin(SupervisedPlugin):  # type: ignore[misc]
    """
    Replay features of earlier classes, drawn from statistics and not stored.

    For models with a frozen part, whose features never drift. When a class was
    learned, a Gaussian is fitted to its features (see
    :class:`GaussianStatistics`); from then on every step adds

        alpha * criterion(head(x̃), ỹ),   ỹ ~ classes learned, x̃ ~ N(μ_ỹ, Σ_ỹ)

    to the loss. No image is kept. A class that comes back updates its Gaussian
    and is not replayed meanwhile.

    The idea is that of prototype augmentation (PASS: Zhu et al., Prototype
    Augmentation and Self-Supervision for Incremental Learning, CVPR 2021), here
    with a covariance for each class.

    :param batch_size: number of features drawn for each step.
    :param rank: modes of the covariance that are kept for each class, see
        :class:`GaussianStatistics`.
    :param alpha: weight of the replay in the loss.
    :param features: name of the model's frozen module. Defaults to None: the
        inputs of the model are features.
    :param head: name of the module that takes them. Defaults to None: the model.

    >>> FeatureStatisticsReplayPlugin(rank=4).rank
    4
    """

    def __init__(
        self,
        batch_size: int = 32,
        rank: int = 16,
        alpha: float = 1.0,
        features: Optional[str] = None,
        head: Optional[str] = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or rank < 0:
            raise ValueError(
                "Expected batch_size of at least 1 and rank of at least 0, got "
                f"batch_size = {batch_size} and rank = {rank}"
            )
        self.batch_size = batch_size
        self.rank = rank
        self.alpha = alpha
        self.features = features
        self.head = head
        self.statistics: Dict[int, GaussianStatistics] = {}
        self._replayed: List[int] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """
        Note the classes that the experience does not have itself.
        """
        current = strategy.adapted_dataset.targets.uniques
        self._replayed = sorted(set(self.statistics) - set(current))

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """
        Add the loss of features drawn of earlier classes.
        """
        if self._replayed:
            x, y = self.draw(self._replayed, self.batch_size)
            x, y = x.to(strategy.device), y.to(strategy.device)
            output = _part(strategy.model, self.head)(x)
            strategy.loss += self.alpha * strategy._criterion(output, y)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """
        Update the statistics of the classes of the experience.
        """
        update_statistics(self.statistics, strategy, self.rank, self.features)

    def draw(self, classes: Sequence[int], count: int) -> Tuple[Tensor, Tensor]:
        """
        Draw features, of all classes about as often.

        :param classes: with statistics.
        :param count: how many.
        :return: features (count, ...) and their classes (count,).
        """
        order = torch.randperm(len(classes)).repeat(-(-count // len(classes)))[:count]
        numbers = order.bincount(minlength=len(classes)).tolist()
        parts, labels = [], []
        for label, number in zip(classes, numbers):
            parts.append(self.statistics[label].sample(number))
            labels += [label] * number
        return torch.cat(parts), torch.tensor(labels)


@torch.no_grad()
def update_statistics(
    statistics: Dict[int, GaussianStatistics],
    strategy: Any,
    rank: int,
    features: Optional[str] = None,
) -> None:
    """
    Update statistics with the classes of the experience just trained on.

    :param statistics: by class; those of new classes are added.
    :param strategy: the strategy after the experience.
    :param rank: of new statistics.
    :param features: name of the model's frozen module. Defaults to None: the
        inputs of the model are features.
    """
    training = strategy.model.training
    strategy.model.eval()
    extract = _part(strategy.model, features) if features else None
    found: Dict[int, List[Tensor]] = {}
    # a data loader draws a seed, and the steps to come shall not change by it
    with torch.random.fork_rng(devices=[]):
        loader = DataLoader(
            strategy.adapted_dataset.eval(), batch_size=strategy.eval_mb_size
        )
        for x, y, *_ in loader:
            x = x.to(strategy.device)
            x = extract(x) if extract else x
            for label in y.unique().tolist():
                found.setdefault(label, []).append(x[y.to(x.device) == label])
    for label, parts in found.items():
        own = statistics.setdefault(label, GaussianStatistics(rank))
        own.update(torch.cat(parts).float())
    strategy.model.train(training)


def _part(model: Any, name: Optional[str]) -> Any:
    return model if name is None else model.get_submodule(name)
