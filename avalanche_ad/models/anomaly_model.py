"""The contract of every detector: what a strategy, a metric and a run ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.calibrated_maps import CalibratedMaps, Levels, joined
from avalanche_ad.models.held_out import held_out_scores
from avalanche_ad.models.image_prediction import PredictsImages
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.loading import LoadsWhole
from avalanche_ad.models.losses import MASKED, ModelLoss, image_loss
from avalanche_ad.models.memory import tensors_of
from avalanche_ad.models.scores import Score, score_named
from avalanche_ad.models.scoring import AnomalyScores
from avalanche_ad.registry.options import ModelOptions

__all__ = ["MASKED", "AnomalyModel"]


class AnomalyModel(CalibratedMaps, PredictsImages, LoadsWhole, ABC):
    """A detector of features that learns category by category.

    ``model(x)`` gives each image's affinity to every category, (N, C), higher is
    nearer, in units in which a softmax over categories is neither saturated nor flat;
    what scores and losses need besides is attached to it
    (:func:`~avalanche_ad.models.latents.attach_latents`). :meth:`score` makes anomaly
    scores of it.

    A model of one's own is a subclass in one file: in ``avalanche_ad/models``, or in
    another package, which names it as an entry point of ``avalanche_ad.models``, or
    anywhere, by its dotted path. It has a ``kind``, the name that recipes and saved
    models give it, ``Options``, the schema of a recipe's ``[model]``, and the names of
    its ``maps``; its constructor takes ``layout``, ``num_categories``, ``seed`` and the
    options, all but the first by keyword. It implements the abstract methods. One that
    is fitted in place of trained says ``trained = False`` and has
    :meth:`fit_experience`; one that is trained has a :meth:`loss`.

    :param layout: shapes of the feature levels.
    :param score_kind: one of ``maps``, by default the first, or a score that combines
        some (:data:`~avalanche_ad.models.scores.SCORES`).
    :param smoothing_sigma: standard deviation of the score map's Gaussian filter, in
        pixels of the mask.
    :param position_calibration: whether what every position says is standardised by
        the category's training normals, see
        :class:`~avalanche_ad.models.position_calibration.PositionCalibration`.

    >>> from avalanche_ad import FeatureGMM
    >>> model = FeatureGMM(FeatureLayout(((4, 4, 2),)))
    >>> isinstance(model, AnomalyModel), model.kind, model.maps
    (True, 'feature_gmm', ('likelihood', 'uncertainty'))
    """

    kind: ClassVar[str]
    Options: ClassVar[type[ModelOptions]] = ModelOptions
    maps: ClassVar[tuple[str, ...]]
    """Names of the maps it offers; each is a score as well."""
    trained: ClassVar[bool] = True
    """Whether gradient steps train it; else :meth:`fit_experience` fits it."""
    repeats_categories: ClassVar[bool] = True
    """Whether a category may come back in a later experience."""
    categories_at_start: bool = False
    """Whether all categories are started at once, and there is no room for more."""
    starts_from_features: bool = False
    """Whether :meth:`add_categories` needs the categories' features."""
    doubt: float = 0.0
    """Gap of affinities within which an image may be of several categories."""

    def __init__(
        self,
        layout: FeatureLayout,
        score_kind: str | None = None,
        smoothing_sigma: float = 4.0,
        position_calibration: bool = True,
    ) -> None:
        super().__init__()
        self.layout = layout
        if not getattr(self, "maps", ()):
            raise TrainingError(
                f"{type(self).__name__} offers no map: set maps = (…) to the names "
                "that normality_levels takes"
            )
        self.score_kind = score_kind or self.maps[0]
        self.smoothing_sigma = smoothing_sigma
        self.position_calibration = position_calibration
        self.positions = self.no_constants()
        self.category_names: dict[int, str] = {}

    # What a model must say ------------------------------------------------------

    @property
    @abstractmethod
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""

    @property
    @abstractmethod
    def known_categories(self) -> Tensor:
        """Indices of the categories learned so far, ascending, (C_known,)."""

    @abstractmethod
    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return affinities per image.

        :param x: features (N, layout.size).
        :return: (N, C); :data:`MASKED` for categories not seen yet. What
            :meth:`normality_levels` needs rides along as the attribute ``latents``.
        """

    @abstractmethod
    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is by one of ``maps``, higher is more.

        :param name: of the map.
        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category each image is scored as, (N,).
        :return: one (N, H, W) per feature level.
        """

    # What a model may say -------------------------------------------------------

    @classmethod
    def built_from(
        cls, options: ModelOptions
    ) -> tuple[type[AnomalyModel], dict[str, Any]]:
        """Return the class that options ask for, and its arguments.

        :param options: of the class's ``Options``.
        :return: this class unless it is a choice of several, and the keyword arguments
            beside layout, room and seed.
        """
        return cls, options.arguments

    def add_categories(
        self, categories: Sequence[int], features: dict[int, Tensor] | None = None
    ) -> None:
        """Start new categories; here room alone is made, for a model that is fitted.

        :param categories: category indices; those already known are left alone.
        :param features: features (N, size) of each, where
            ``starts_from_features``.
        """
        self.resize(max(categories, default=-1) + 1)

    def fit_experience(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the categories of an experience; here nothing, for a model that trains.

        :param batches: minibatches (features (N, size), category indices (N,))
            of all images of the experience, on the model's device.
        """

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the training loss per image, (N,); here minus its own affinity.

        :param output: what :meth:`forward` returned, (N, C).
        :param target: category indices (N,).
        """
        return image_loss(output, target)

    def defect_loss(
        self, x: Tensor, target: Tensor, defects: Tensor, where: Tensor
    ) -> Tensor:
        """Return the loss of telling images from themselves with painted defects.

        It comes on top of :meth:`loss` where the model's options say
        ``learns_defects``; here there is none.

        :param x: features of a minibatch, (N, layout.size).
        :param target: category indices (N,).
        :param defects: features of painted images of the same categories, (N, size).
        :param where: masks of their defects, (N, M, M).
        :return: a scalar.
        :raises TrainingError: when the model does not learn from them.
        """
        raise TrainingError(
            f"{type(self).__name__} does not learn from painted defects: leave the "
            "plugin out, or take a model that has a defect_loss"
        )

    def criterion(self, **options: Any) -> nn.Module:
        """Return what strategies are given as ``criterion(output, target)``.

        :param options: of a recipe's ``[training]``, for a model that reads some.
        """
        return ModelLoss(self)

    def parameter_groups(
        self, lr: float, weight_decay: float, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the optimizer's groups of parameters; here a single one.

        :param lr: learning rate.
        :param weight_decay: L2 penalty.
        :param options: of a recipe's ``[training]``, for a model that reads some.
        """
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]

    def memory(self) -> dict[str, list[Tensor]]:
        """Return what has to be kept to learn on, by kind.

        :return: tensors of ``"exemplars"`` (images or parts of them), ``"statistics"``
            and ``"parameters"``. Here each module's tensors are of the kind that it, or
            one that it is part of, declares as ``memory_kind``, parameters otherwise; a
            module with a ``memory`` of its own answers for itself.
        """
        return tensors_of(self, getattr(self, "memory_kind", "parameters"))

    @property
    def kind_in_use(self) -> str:
        """The kind of score that :meth:`score` gives now by default.

        Scores of different kinds do not compare.
        """
        return self._usable(self.score_kind)

    def _usable(self, kind: str) -> str:
        """Return the kind of score given in the place of one that means nothing now."""
        return kind

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether :meth:`levels_without` fits the density anew, here not.

        If not, the density has seen the images that :meth:`held_out_scores` scores, and
        new normals score higher than those.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return False

    def held_out_rows(self, category: int, x: Tensor) -> Tensor:
        """Return which normals :meth:`levels_without` can score as new ones, (N,).

        Here all, as far as it can at all.

        :param category: a category that has been learned.
        :param x: features (N, layout.size) of its training normals.
        """
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say under a category's model of some images alone.

        Here the model as it is: one that can be fitted to the images overrides this.

        :param category: a category that has been learned.
        :param x: features (N, layout.size) of its training normals.
        :param parts: rows to fit to, and rows (M,) to score, of each part.
        :param names: of the maps wanted.
        :return: for each part and map one (M, H, W) per level, as calibrated with.
        """
        found: dict[str, list[Levels]] = {name: [] for name in names}
        for part in torch.split(x, 32):
            latents = latents_of(self(part))
            chosen = torch.full((len(part),), category, device=x.device)
            for name in names:
                found[name].append(self.normality_levels(name, latents, chosen))
        whole = joined(found)
        for _, rows in parts:
            yield {
                name: [level[rows] for level in levels]
                for name, levels in whole.items()
            }

    # What follows ---------------------------------------------------------------

    def name_categories(self, names: Mapping[int, str]) -> None:
        """Note the names of categories, by which a stream is known to be another.

        :param names: name by index.
        :raises TrainingError: when an index has another name already.
        """
        for index, name in names.items():
            known = self.category_names.setdefault(index, name)
            if known != name:
                raise TrainingError(
                    f"category {index} is {name!r} in this stream, and the model has "
                    f"learned {known!r} as that: give the stream "
                    f"learned=[[{known!r}, …], …], the experiences learned before, and "
                    "its own categories get indices of their own"
                )

    def held_out_scores(
        self, category: int, x: Tensor, mask_size: tuple[int, int], **options: int
    ) -> Tensor:
        """Return image scores of a category's normals, each scored without it.

        See :func:`~avalanche_ad.models.held_out.held_out_scores`.
        """
        return held_out_scores(self, category, x, mask_size, **options)

    def score_of(self, kind: str | None = None) -> Score:
        """Return the score of a kind, the model's own by default.

        :raises RecipeError: for an unknown one, or one of maps the model has not.
        """
        return score_named(self._usable(kind or self.score_kind), self.maps)

    @torch.no_grad()
    def score(
        self,
        output: Tensor,
        mask_size: tuple[int, int],
        category: Tensor | None = None,
        kind: str | None = None,
    ) -> AnomalyScores:
        """Return anomaly scores of a minibatch from the model's output.

        Task-agnostic by default: every image is scored as the category the model
        infers for it. Of its :meth:`candidates` the map is the nearest's; the image
        score is that of the map whose pixels take the lowest of all theirs, since what
        is normal for one of them is no defect. With ``category`` it is the oracle
        score, whose maps are given the true category.

        A map is −G ∗ Σ_l U_l v_l, v_l what the positions of level l say, upsampled by
        U_l and smoothed by G. With position calibration the terms are w_l, at most 0:
        v_l standardised per position, less the largest of the training normals.

        :param output: the tensor :meth:`forward` returned, unsliced.
        :param mask_size: (H, W) of the score maps.
        :param category: true category indices (N,), for oracle scoring.
        :param kind: another score than the model's own ``score_kind``.
        :raises TrainingError: when the model does not know a category or is not
            calibrated for it, or when the output has lost its latents.
        """
        latents = latents_of(output)
        if latents is None:
            raise TrainingError(
                "the model's output carries no latents (it was sliced or changed): "
                "pass score() the tensor that the model returned"
            )
        if category is None:
            candidates = self.candidates(output)
        elif unknown := set(category.tolist()) - set(self.known_categories.tolist()):
            raise TrainingError(
                f"categories {sorted(unknown)} have not been learned, so they have no "
                "oracle score: evaluate on the experiences seen so far, or without "
                "oracle scores"
            )
        else:
            candidates = category[:, None]
        score = self.score_of(kind)
        maps = []
        for one in candidates.unbind(1):
            found = {
                name: self.normality_levels(name, latents, one) for name in score.maps
            }
            maps.append(self.score_maps(score, found, one, mask_size))
        lowest = reduce(torch.minimum, maps)
        return AnomalyScores(score.image(lowest), maps[0], candidates[:, 0])

    def candidates(self, output: Tensor) -> Tensor:
        """Return the categories that each image may be of, (N, M), nearest first.

        Those whose affinity is at most ``doubt`` below the nearest one's; an image of
        which there are fewer than M repeats its last.

        :param output: what :meth:`forward` returned, (N, C).
        """
        nearest = self.infer_category(output)[:, None]
        if not self.doubt:
            return nearest
        known = self.known_categories
        affinity, order = output[:, known].sort(1, descending=True)
        count = (affinity >= affinity[:, :1] - self.doubt).sum(1, keepdim=True)
        column = torch.arange(int(count.max()), device=output.device)
        return known[order.gather(1, torch.minimum(column, count - 1))]

    def infer_category(self, output: Tensor) -> Tensor:
        """Return the nearest known category of each image, (N,)."""
        known = self.known_categories
        if not len(known):
            raise TrainingError(
                "the model knows no category yet: train it on an experience first"
            )
        return known[output[:, known].argmax(1)]
