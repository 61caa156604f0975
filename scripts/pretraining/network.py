"""The network while it trains: timm's blocks with a classifier on the last stage."""

from __future__ import annotations

from typing import Any

from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn

from avalanche_ad.features.residual_trunk import (
    ResidualArchitecture,
    ResidualTrunk,
)
from avalanche_ad.features.weights.export import fold
from pretraining.contrast import STAGES, Projections

__all__ = ["Classifier", "folded_trunk"]


class Classifier(nn.Module):
    """Classify photographs by a linear classifier at every position of the last stage.

    An image's logits are their mean over positions, as of a classifier behind global
    average pooling.

    :param architecture: sizes of the network, built of timm's blocks.
    :param classes: how many classes.
    :param contrast: whether it has heads for the contrastive loss.
    :param labels: whether the classifier teaches the network; else it only tells what
        it has learned without labels, a linear probe.
    """

    def __init__(
        self,
        architecture: ResidualArchitecture,
        classes: int,
        *,
        contrast: bool = False,
        labels: bool = True,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        blocks = tuple(
            ByoBlockCfg("basic", d=depth, c=width, s=2 if number else 1, gs=0)
            for number, (width, depth) in enumerate(
                zip(architecture.channels, architecture.blocks, strict=True)
            )
        )
        config = ByoModelCfg(blocks, stem_chs=architecture.stem, stem_pool=None)
        self.network = ByobNet(config, num_classes=0)
        self.head = nn.Conv2d(architecture.channels[-1], classes, 1)
        self.labels = labels
        compared = architecture.channels[-STAGES:]
        self.projections = Projections(compared) if contrast else None

    def forward(
        self, images: Tensor, places: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (N, classes) and the contrastive loss, 0 without.

        :param images: (N, 3, S, S), normalised; with ``places`` a first view of every
            image and then a second of each.
        :param places: see :class:`~pretraining.contrast.Projections`.
        """
        x = self.network.stem(images)
        maps = []
        for stage in self.network.stages:
            x = stage(x)
            maps.append(x)
        found = self.head(x if self.labels else x.detach()).float().mean((2, 3))
        contrast = images.new_zeros(())
        if self.projections is not None and places is not None:
            contrast = self.projections(maps[-STAGES:], places)
        return found, contrast


def folded_trunk(classifier: Classifier) -> ResidualTrunk:
    """Return the network for inference, its batch normalisation folded into filters.

    :param classifier: the trained network; it stays as it is.
    """
    trunk = ResidualTrunk(classifier.architecture)
    pairs: list[tuple[Any, Any]] = [(trunk.stem, classifier.network.stem)]
    stages: Any = zip(trunk.stages, classifier.network.stages, strict=True)
    for folded, stage in stages:
        for target, block in zip(folded, stage, strict=True):
            pairs.append((target.conv1, block.conv1_kxk))
            pairs.append((target.conv2, block.conv2_kxk))
            if target.shortcut is not None:
                pairs.append((target.shortcut, block.shortcut))
    was_training = classifier.training
    classifier.eval()
    for target, layer in pairs:
        fold(target, layer.conv, layer.bn)
    classifier.train(was_training)
    return trunk.eval()
