"""Score maps of what positions say, and the constants that normals give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.category_table import known_rows
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.position_calibration import PositionCalibration
from avalanche_ad.models.scores import Score
from avalanche_ad.models.scoring import normality_map

__all__ = ["Levels", "joined"]

Levels = list[Tensor]
"""One (N, H, W) per feature level: how normal every position is by one map."""


class CalibratedMaps(nn.Module):
    """The part of a detector that makes score maps, see :class:`AnomalyModel`.

    Its constants are ``positions``, a calibration for each of ``maps``.
    """

    maps: ClassVar[tuple[str, ...]]
    layout: FeatureLayout
    smoothing_sigma: float
    position_calibration: bool
    positions: nn.ModuleDict

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def map_shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each part of a map: a feature level, unless a model joins them."""
        return [(height, width) for height, width, _ in self.layout.levels]

    def no_constants(self) -> nn.ModuleDict:
        """Return the position calibrations of no category, if there are to be any."""
        calibrated = self.maps if self.position_calibration else ()
        return nn.ModuleDict(
            {name: PositionCalibration(self.map_shapes) for name in calibrated}
        )

    def calibrated(self, name: str) -> bool:
        """Whether a map's constants have been taken, or it has none."""
        if name not in self.positions:
            return True
        return bool(len(known_rows(self.positions[name].get_buffer("level_0"))))

    def constants(self, categories: Sequence[int]) -> Tensor:
        """Return the constants that :meth:`calibrate` took for categories, flat."""
        rows = [
            table.get_buffer(name)[list(categories)].flatten()
            for table in self.positions.values()
            for name in table._buffers
        ]
        return torch.cat(rows) if rows else torch.zeros(0, device=self.device)

    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the scores' constants from training normals.

        With position calibration each map's statistics per position are taken of the
        images given here. Categories without an image keep what they have; one that
        never had an image borrows the others'.

        :param batches: minibatches (features (N, size), category indices (N,)).
        """
        found: dict[str, list[Levels]] = {
            name: [] for name in self.maps if self.has_constants(name)
        }
        seen = []
        with evaluating(self):
            for x, category in batches:
                latents = latents_of(self(x))
                if latents is None:
                    raise TrainingError(
                        f"{type(self).__name__}.forward attached no latents to its "
                        "output: let it return attach_latents(output, …)"
                    )
                for name, parts in found.items():
                    parts.append(self.normality_levels(name, latents, category))
                seen.append(category)
        categories = torch.cat(seen) if seen else torch.zeros(0)
        whole = joined(found)
        for index in sorted(set(categories.tolist())):
            rows = categories == index
            own = {
                name: [level[rows] for level in levels]
                for name, levels in whole.items()
            }
            self.put_constants(index, own)

    def has_constants(self, name: str) -> bool:
        """Whether a map has constants."""
        return name in self.positions

    def put_constants(self, category: int, normality: Mapping[str, Levels]) -> None:
        """Set a category's constants from what its normals' positions say, by map."""
        for name, levels in normality.items():
            if name in self.positions:
                self.positions[name].fit(category, levels)  # type: ignore[operator]

    @contextmanager
    def constants_kept(self) -> Iterator[None]:
        """Let the scores' constants be others for a while."""
        owners = [self, *self.positions.values()]
        kept = [dict(owner.named_buffers(recurse=False)) for owner in owners]
        try:
            yield
        finally:
            for owner, buffers in zip(owners, kept, strict=True):
                for name, buffer in buffers.items():
                    setattr(owner, name, buffer)

    def score_maps(
        self,
        score: Score,
        normality: Mapping[str, Levels],
        category: Tensor,
        mask_size: tuple[int, int],
    ) -> Tensor:
        """Return score maps (N, H, W), see :meth:`score`.

        :param score: how maps combine.
        :param normality: what positions say, by map.
        :param category: index of the category each image is scored as, (N,).
        :param mask_size: (H, W).
        """
        maps = {}
        for name, levels in normality.items():
            if not self.calibrated(name):
                raise TrainingError(
                    "the scores are not calibrated on training normals: add "
                    "CalibrationPlugin to the strategy, or call model.calibrate(...) "
                    "after training"
                )
            self._check_positions(levels)
            if name in self.positions:
                own = self.positions[name](levels, category)
                below = [level.clamp(max=0.0) for level in own]
                maps[name] = -normality_map(below, mask_size, self.smoothing_sigma)
            else:
                maps[name] = self.map_of(name, levels, category, mask_size)
        return score.combine(maps)

    def map_of(
        self, name: str, levels: Levels, category: Tensor, mask_size: tuple[int, int]
    ) -> Tensor:
        """Return a map without position calibration, see :meth:`score`, (N, H, W)."""
        return -normality_map(levels, mask_size, self.smoothing_sigma)

    def _check_positions(self, levels: Sequence[Tensor]) -> None:
        for level, shape in zip(levels, self.map_shapes, strict=True):
            if level.shape[1:] != shape:
                raise TrainingError(
                    "the output holds only the positions drawn for a training step: "
                    "call model.eval() before the forward pass whose output is scored"
                )


def joined(batches: Mapping[str, list[Levels]]) -> dict[str, Levels]:
    """Return the levels of minibatches put together, by map."""
    return {
        name: [torch.cat(level) for level in zip(*parts, strict=True)]
        for name, parts in batches.items()
    }
