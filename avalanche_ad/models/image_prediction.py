"""From images to scores: the frozen backbone, beside the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.scoring import AnomalyScores

__all__ = ["FeatureExtractor"]

FeatureExtractor = Callable[[Tensor], Sequence[Tensor]]
"""Images (N, 3, S, S) in [0, 1] to feature levels (N, H, W, C), finest first."""


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


class PredictsImages(nn.Module):
    """The part of a detector that takes images, see :class:`AnomalyModel`.

    No parameter and no state: copies share the backbone.
    """

    layout: FeatureLayout
    score: Callable[..., AnomalyScores]

    def __init__(self) -> None:
        super().__init__()
        self._shared = _Shared(None, 0, 0)

    def features_of(self, x: Tensor) -> Tensor:
        """Return features as they are, or those of images (N, 3, S, S).

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
        return self.layout.flatten(list(backbone(x)))

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
        kind: str | None = None,
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
        tensors = chain(self.parameters(), self.buffers())
        like = next(tensor for tensor in tensors if tensor.is_floating_point())
        parts = []
        with evaluating(self):
            for batch in torch.split(images, batch_size):
                batch = batch if batch.is_floating_point() else batch / 255.0
                batch = batch.to(like)
                if size and batch.shape[2:] != (size, size):
                    batch = F.interpolate(
                        batch, (size, size), mode="bilinear", antialias=True
                    ).clamp(0, 1)
                found = self.score(self(batch), (mask_size, mask_size), kind=kind)
                parts.append(found)
        return AnomalyScores.concatenate(parts)
