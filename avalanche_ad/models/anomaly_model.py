"""What every anomaly model of the package offers: scores, calibration, prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.category_table import (
    known_rows,
    own_or_borrowed,
    with_rows,
)
from avalanche_ad.models.copies import copies_of
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.loading import LoadsWhole
from avalanche_ad.models.position_calibration import PositionCalibration
from avalanche_ad.models.scoring import (
    AnomalyScores,
    LikelihoodMap,
    ScoreKind,
    normality_map,
)

__all__ = ["MASKED", "AnomalyModel", "FeatureExtractor", "evaluating", "seeded"]

MASKED = -1e4  # log-likelihood of a category not seen yet: finite, so softmax stays so

FeatureExtractor = Callable[[Tensor], Sequence[Tensor]]
"""Images (N, 3, S, S) in [0, 1] to feature levels (N, H, W, C), finest first."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode for a while, without gradient."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's generator of the CPU start from a seed for a while, then go on.

    Those of accelerators stay as they are, which ``torch.manual_seed`` would seed too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class _Shared:
    """Holds a frozen backbone outside the module tree; copies share it."""

    def __init__(
        self, backbone: FeatureExtractor | None, image_size: int, mask_size: int
    ) -> None:
        self.backbone = backbone
        self.image_size = image_size
        self.mask_size = mask_size

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class AnomalyModel(LoadsWhole, ABC):
    """A density model of packed features, one component group per category.

    ``model(x)`` gives joint log-likelihoods log p(x|c) + log π_c per image, (N, C), in
    units in which a softmax over categories is neither saturated nor flat, with the
    dense latents attached. :meth:`score` turns them into anomaly scores.

    :param layout: shapes of the feature levels.
    :param score_kind: ``"product"`` (HGAD's final score), ``"likelihood"`` or
        ``"uncertainty"``.
    :param smoothing_sigma: standard deviation of the score map's Gaussian filter, in
        pixels of the mask.
    :param likelihood_map: how v = log p(x|c)/D − m enters the map: ``"log"``, as 1 + v,
        or ``"probability"``, HGAD's exp(v). They agree to first order near v = 0; far
        below, where all of a forgotten category lies, exp(v) underflows to one value
        and loses the order that v keeps.
    :param position_calibration: whether what every position says, log p(x|c)/D and the
        negative entropy's exponential, is standardised by the category's training
        normals, see
        :class:`~avalanche_ad.models.position_calibration.PositionCalibration`; HGAD's
        own scores are without it.
    """

    level_maximum: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        score_kind: ScoreKind = "product",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        position_calibration: bool = True,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.score_kind = score_kind
        self.smoothing_sigma = smoothing_sigma
        self.likelihood_map = likelihood_map
        self.register_buffer("level_maximum", torch.zeros(0, len(layout.levels)))
        self.position_calibration = position_calibration
        self.positions = nn.ModuleDict()
        if position_calibration:
            shapes = [(height, width) for height, width, _ in layout.levels]
            for kind in ("likelihood", "uncertainty"):
                self.positions[kind] = PositionCalibration(shapes)
        self._shared = _Shared(None, 0, 0)
        self.category_names: dict[int, str] = {}

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the model's own tensors that have a row a category."""
        return ("level_maximum",)

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
    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image.

        :param x: packed features (N, layout.size).
        :return: (N, C); −1e4 for categories not seen yet. The dense latents ride along
            as the attribute ``latents``.
        """

    @abstractmethod
    def log_likelihood_levels(self, latents: object, category: Tensor) -> list[Tensor]:
        """Return log p(x|c)/D per position, one (N, H, W) per level.

        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category of each image, (N,).
        """

    @abstractmethod
    def negative_entropy_levels(
        self, latents: object, category: Tensor
    ) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level.

        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category each image is judged by, (N,).
        """

    def alternatives(self, category: Tensor) -> Tensor:
        """Return over how many categories each image's entropy is taken, (N,).

        :param category: index of the category each image is judged by, (N,).
        """
        return torch.full_like(category, len(self.known_categories))

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

    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the score's normalisation from training normals.

        Per level l and category c the constant m_lc is the largest log p(x|c)/D over
        all positions of the category's images given here; with position calibration
        statistics per position are taken of the same images. Categories without an
        image keep what they have; one that never had an image borrows the largest
        constant.

        :param batches: minibatches (packed features (N, size), category indices (N,)).
        """
        found: dict[str, list[list[Tensor]]] = {"likelihood": []}
        found |= {kind: [] for kind in self.positions}
        seen = []
        with evaluating(self):
            for x, category in batches:
                latents = latents_of(self(x))
                for kind, parts in found.items():
                    parts.append(self._normality_levels(kind, latents, category))
                seen.append(category)
        categories = torch.cat(seen) if seen else torch.zeros(0)
        whole = {
            kind: [torch.cat(level) for level in zip(*parts, strict=True)]
            for kind, parts in found.items()
        }
        for index in sorted(set(categories.tolist())):
            rows = categories == index
            own = {
                kind: [level[rows] for level in levels]
                for kind, levels in whole.items()
            }
            self._put_constants(index, own)
        self.level_maximum = with_rows(self.level_maximum, {}, self.num_categories)

    def _put_constants(self, category: int, found: dict[str, list[Tensor]]) -> None:
        """Set a category's constants from what its normals' positions say, by kind."""
        for kind, levels in found.items():
            if kind == "likelihood":
                best = torch.stack([level.amax() for level in levels])
                self.level_maximum = with_rows(self.level_maximum, {category: best})
            if kind in self.positions:
                self.positions[kind].fit(category, levels)  # type: ignore[operator]

    @contextmanager
    def _constants_kept(self) -> Iterator[None]:
        """Let the score's constants be others for a while."""
        owners = [self, *self.positions.values()]
        kept = [dict(owner.named_buffers(recurse=False)) for owner in owners]
        try:
            yield
        finally:
            for owner, buffers in zip(owners, kept, strict=True):
                for name, buffer in buffers.items():
                    setattr(owner, name, buffer)

    @torch.no_grad()
    def held_out_scores(
        self,
        category: int,
        x: Tensor,
        mask_size: tuple[int, int],
        *,
        folds: int = 16,
        images: int = 32,
    ) -> Tensor:
        """Return image scores of a category's normals, each by a judge without it.

        The images are parted into folds of neighbours, so that near copies, which often
        follow each other, are held out together; an image and its copies
        (:func:`~avalanche_ad.models.copies.copies_of`) always are. For each fold the
        category's constants (:meth:`calibrate`) are taken from the other folds alone,
        and so is its density as far as the model can fit it without training
        (:meth:`levels_without`). The model is left as it was.

        :param category: a category that has been learned.
        :param x: packed features (N, layout.size) of its training normals, copies
            included, as the density was fitted to; n of them no copies, at least 2.
        :param mask_size: (H, W) of the score maps.
        :param folds: how many; n at most.
        :param images: of how many images the constants are taken, as for the model's
            own: spread over those there are, or where they are fewer each taken again.
        :return: (n,), of the category given: none is inferred. Of an image and its
            copies the first.
        :raises TrainingError: for fewer than two images.
        """
        first, group = torch.unique(copies_of(x).cpu(), return_inverse=True)
        count = len(first)
        if count < 2:
            raise TrainingError(
                f"category {category} has {count} training image: with fewer than two "
                "none can be held out to take a threshold from"
            )
        kind = self.kind_in_use
        kinds = ("uncertainty", "likelihood") if kind == "product" else (kind,)
        fold = torch.arange(count) * min(folds, count) // count
        parts = []
        for index in range(min(folds, count)):
            rest = (fold[group] != index).nonzero().flatten()
            drawn = torch.arange(images) * max(len(rest), images) // images % len(rest)
            parts.append((rest, rest[drawn], first[fold == index]))
        scores = []
        with evaluating(self), self._constants_kept():
            judged = [(rest, torch.cat([own, held])) for rest, own, held in parts]
            found = self.levels_without(category, x, judged, kinds)
            for (_, own, held), levels in zip(parts, found, strict=True):
                self._put_constants(
                    category,
                    {
                        name: [level[: len(own)] for level in of_kind]
                        for name, of_kind in levels.items()
                    },
                )
                chosen = torch.full((len(held),), category, device=x.device)
                maps = self._maps(
                    {
                        name: [level[len(own) :] for level in of_kind]
                        for name, of_kind in levels.items()
                    },
                    chosen,
                    mask_size,
                )
                scores.append(maps.flatten(1).amax(1))
        return torch.cat(scores)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether :meth:`levels_without` fits the density anew, here not.

        If not, the density has seen the images that :meth:`held_out_scores` judges, and
        new normals score higher than those.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return False

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        kinds: Sequence[str],
    ) -> Iterator[dict[str, list[Tensor]]]:
        """Yield what positions say under the category's density of some images alone.

        Here the density as it is: a model that can fit it to the images overrides this.

        :param category: a category that has been learned.
        :param x: packed features (N, layout.size) of its training normals.
        :param parts: rows to fit to, and rows (M,) to judge, of each part.
        :param kinds: ``"likelihood"``, ``"uncertainty"`` or both.
        :return: for each part and kind one (M, H, W) per level, as calibrated with.
        """
        found: dict[str, list[list[Tensor]]] = {kind: [] for kind in kinds}
        for part in torch.split(x, 32):
            latents = latents_of(self(part))
            chosen = torch.full((len(part),), category, device=x.device)
            for kind in kinds:
                found[kind].append(self._normality_levels(kind, latents, chosen))
        whole = {
            kind: [torch.cat(level) for level in zip(*levels, strict=True)]
            for kind, levels in found.items()
        }
        for _, rows in parts:
            yield {
                kind: [level[rows] for level in levels]
                for kind, levels in whole.items()
            }

    @property
    def kind_in_use(self) -> ScoreKind:
        """The kind of score that :meth:`score` gives now by default.

        Scores of different kinds do not compare.
        """
        return self._kind(self.score_kind)

    def _kind(self, kind: ScoreKind) -> ScoreKind:
        """Return the likelihood where there is nothing to be uncertain about."""
        alone = bool((self.alternatives(self.known_categories) < 2).any())
        return "likelihood" if alone else kind

    @torch.no_grad()
    def score(
        self,
        output: Tensor,
        mask_size: tuple[int, int],
        category: Tensor | None = None,
        kind: ScoreKind | None = None,
    ) -> AnomalyScores:
        """Return anomaly scores of a minibatch from the model's output.

        Task-agnostic by default: every image is judged by the category the model
        infers for it. With ``category`` it is the oracle score, whose likelihood is
        given the true category, as HGAD's released code is.

        With v_l = log p(x|c)/D, at most the constants m_lc of :meth:`calibrate`, and L
        levels:

        - likelihood: L − G ∗ Σ_l U_l (1 + v_l − m_lc), or with exp(v_l − m_lc) under
          ``likelihood_map="probability"``
        - uncertainty: L − G ∗ Σ_l U_l exp(Σ_c p_c log p_c)
        - product: the product of both.

        With position calibration the levels' terms are 1 + w_l instead, w_l at most 0:
        v_l, or exp(Σ_c p_c log p_c), standardised per position, less the largest of the
        training normals.

        While the entropy of a known category is over itself alone there is nothing to
        be uncertain about, and every kind is the likelihood, for all images, since
        their scores are compared.

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
        kind = kind or self.score_kind
        if category is None:
            category = self.infer_category(output)
        elif unknown := set(category.tolist()) - set(self.known_categories.tolist()):
            raise TrainingError(
                f"categories {sorted(unknown)} have not been learned, so they have no "
                "oracle score: evaluate on the experiences seen so far, or without "
                "oracle scores"
            )
        kind = self._kind(kind)
        kinds = ("uncertainty", "likelihood") if kind == "product" else (kind,)
        levels = {
            name: self._normality_levels(name, latents, category) for name in kinds
        }
        maps = self._maps(levels, category, mask_size)
        return AnomalyScores(maps.flatten(1).amax(1), maps, category)

    def infer_category(self, output: Tensor) -> Tensor:
        """Return the most likely known category of each image, (N,)."""
        known = self.known_categories
        if not len(known):
            raise TrainingError(
                "the model knows no category yet: train it on an experience first"
            )
        return known[output[:, known].argmax(1)]

    def _maps(
        self,
        found: dict[str, list[Tensor]],
        category: Tensor,
        mask_size: tuple[int, int],
    ) -> Tensor:
        """Return score maps, those of several kinds multiplied, see :meth:`score`."""
        maps: Tensor | None = None
        for kind, levels in found.items():
            if kind == "likelihood":
                part = self._likelihood_map(levels, category, mask_size)
            else:
                part = self._uncertainty_map(levels, category, mask_size)
            maps = part if maps is None else maps * part
        assert maps is not None
        return maps

    def _likelihood_map(
        self, levels: list[Tensor], category: Tensor, mask_size: tuple[int, int]
    ) -> Tensor:
        known = known_rows(self.level_maximum)
        if not len(known):
            raise TrainingError(
                "the scores are not calibrated on training normals: add "
                "CalibrationPlugin to the strategy, or call model.calibrate(...) after "
                "training"
            )
        self._check_positions(levels)
        if "likelihood" in self.positions:
            return self._position_map("likelihood", levels, category, mask_size)
        maximum = own_or_borrowed(self.level_maximum, category, known.amax(0))
        levels = [
            self._transform(level - maximum[:, index, None, None])
            for index, level in enumerate(levels)
        ]
        return len(levels) - normality_map(levels, mask_size, self.smoothing_sigma)

    def _uncertainty_map(
        self, levels: list[Tensor], category: Tensor, mask_size: tuple[int, int]
    ) -> Tensor:
        self._check_positions(levels)
        if "uncertainty" in self.positions:
            return self._position_map("uncertainty", levels, category, mask_size)
        return len(levels) - normality_map(levels, mask_size, self.smoothing_sigma)

    def _normality_levels(
        self, kind: str, latents: object, category: Tensor
    ) -> list[Tensor]:
        if kind == "likelihood":
            return self.log_likelihood_levels(latents, category)
        found = self.negative_entropy_levels(latents, category)
        return [level.exp() for level in found]

    def _position_map(
        self,
        kind: str,
        levels: list[Tensor],
        category: Tensor,
        mask_size: tuple[int, int],
    ) -> Tensor:
        """Return −G ∗ Σ_l U_l w_l, see :meth:`score`."""
        found = self.positions[kind](levels, category)
        found = [level.clamp(max=0.0) for level in found]
        return -normality_map(found, mask_size, self.smoothing_sigma)

    def _check_positions(self, levels: Sequence[Tensor]) -> None:
        for level, (height, width, _) in zip(levels, self.layout.levels, strict=True):
            if level.shape[1:] != (height, width):
                raise TrainingError(
                    "the output holds only the positions drawn for a training step: "
                    "call model.eval() before the forward pass whose output is scored"
                )

    def _transform(self, level: Tensor) -> Tensor:
        # above the likeliest training position there is nothing left to be normal about
        level = level.clamp(max=0.0)
        return level.exp() if self.likelihood_map == "probability" else 1 + level

    def packed(self, x: Tensor) -> Tensor:
        """Return packed features: as they are, or of images (N, 3, S, S).

        :raises TrainingError: when ``x`` holds images and no backbone was attached.
        """
        if x.dim() != 4:
            return x
        backbone = self._shared.backbone
        if backbone is None:
            raise TrainingError(
                "the model has no backbone to compute features with: call "
                "model.attach_backbone(backbone, image_size) first"
            )
        if isinstance(backbone, nn.Module):
            backbone.to(x.device)
        return self.layout.pack(list(backbone(x)))

    @abstractmethod
    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state whose levels have different numbers of categories."""
        super().check_state(state)
        mixtures = self.get_submodule("mixtures").children()
        rows = {len(mixture.get_buffer("known")) for mixture in mixtures}
        if len(rows) > 1:
            raise ValueError(
                f"the levels have mixtures for {sorted(rows)} categories: they have to "
                "be as many"
            )

    # Prediction -----------------------------------------------------------------

    def attach_backbone(
        self,
        backbone: FeatureExtractor,
        image_size: int,
        mask_size: int | None = None,
    ) -> None:
        """Give the model the frozen backbone that :meth:`predict` needs.

        It stays outside the module tree: no parameters, no state, shared by copies. A
        module follows the images to their device.

        :param backbone: what computed the features the model was trained on.
        :param image_size: edge in pixels of the images it computed them from.
        :param mask_size: edge of the score maps in pixels, ``image_size`` by default:
            give the stream's, so that scores compare with those measured on it.
        """
        self._shared = _Shared(backbone, image_size, mask_size or image_size)

    def predict(
        self,
        images: Tensor,
        batch_size: int = 32,
        kind: ScoreKind | None = None,
    ) -> AnomalyScores:
        """Return anomaly scores, score maps and inferred categories of images.

        :param images: (N, 3, H, W), floats in [0, 1] or 8-bit integers; resized to the
            model's image size when they are of another.
        :param batch_size: images per forward pass.
        :param kind: another score than the model's own.
        :return: scores whose maps have the attached mask size, whatever the images'.
        :raises TrainingError: when no backbone was attached.
        :raises ValueError: when ``images`` has another shape or range.
        """
        size, mask_size = self._shared.image_size, self._shared.mask_size
        if images.dim() != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(
                "expected at least one image, shape (N, 3, H, W), got "
                f"{tuple(images.shape)}"
            )
        if images.is_floating_point() and float(images.max()) > 1.0 + 1e-3:
            raise ValueError(
                "expected images of floats in [0, 1] or of 8-bit integers, got floats "
                f"up to {float(images.max()):g}: divide them by 255"
            )
        parts = []
        with evaluating(self):
            for batch in torch.split(images, batch_size):
                batch = batch if batch.is_floating_point() else batch / 255.0
                batch = batch.to(self.level_maximum)
                if size and batch.shape[2:] != (size, size):
                    batch = F.interpolate(
                        batch, (size, size), mode="bilinear", antialias=True
                    ).clamp(0, 1)
                parts.append(self.score(self(batch), (mask_size, mask_size), kind=kind))
        return AnomalyScores.concatenate(parts)
