"""The network while it trains: timm's blocks with classifiers on several stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from avalanche_ad.features.residual_trunk import (
    ResidualArchitecture,
    ResidualTrunk,
)
from avalanche_ad.pretraining.augmentation import Mixed
from avalanche_ad.pretraining.contrast import STAGES, Projections
from avalanche_ad.pretraining.folding import fold
from avalanche_ad.pretraining.painting import KINDS

__all__ = ["Classifier", "Logits", "folded_trunk", "objective"]


@dataclass(frozen=True)
class Logits:
    """What the network says of each classified stage, the last stage first.

    :param classes: (N, classes, H, W) per stage: what the photograph shows.
    :param kinds: (N, kinds, H, W) per stage: which defect a position shows, if any.
    :param contrast: the contrastive loss of two views of each image, 0 without.
    """

    classes: list[Tensor]
    kinds: list[Tensor]
    contrast: Tensor


class Classifier(nn.Module):
    """Classify photographs and positions from the last stage and the ones before it.

    A linear classifier per position; an image's logits are their mean over positions,
    as of a classifier behind global average pooling.

    :param architecture: sizes of the network, built of timm's blocks.
    :param classes: how many classes.
    :param stages: how many of the last stages have a classifier.
    :param contrast: whether it has heads for the contrastive loss.
    :param labels: whether classifiers teach the network; else they only tell what it
        has learned without labels, a linear probe.
    """

    def __init__(
        self,
        architecture: ResidualArchitecture,
        classes: int,
        stages: int,
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
        self.split = [classes, len(KINDS)]
        self.heads = nn.ModuleList(
            nn.Conv2d(width, sum(self.split), 1)
            for width in architecture.channels[-stages:]
        )
        self.labels = labels
        compared = architecture.channels[-STAGES:]
        self.projections = Projections(compared) if contrast else None

    def forward(
        self, images: Tensor, places: tuple[Tensor, Tensor] | None = None
    ) -> Logits:
        """Return what the network says of images.

        :param images: (N, 3, S, S), normalised; with ``places`` a first view of every
            image and then a second of each.
        :param places: see :class:`~avalanche_ad.pretraining.contrast.Projections`.
        """
        x = self.network.stem(images)
        maps = []
        for stage in self.network.stages:
            x = stage(x)
            maps.append(x)
        found = [
            torch.split(
                head(level if self.labels else level.detach()), self.split, dim=1
            )
            for head, level in zip(
                reversed(self.heads), reversed(maps[-len(self.heads) :]), strict=True
            )
        ]
        contrast = images.new_zeros(())
        if self.projections is not None and places is not None:
            contrast = self.projections(maps[-STAGES:], places)
        return Logits(
            [both[0] for both in found], [both[1] for both in found], contrast
        )


def objective(
    logits: Logits,
    shown: Mixed,
    painted: Mixed | None,
    *,
    smoothing: float,
    auxiliary: float,
    dense: float,
    defects: float,
) -> Tensor:
    """Return the training loss, over the last stage and the ones before it.

    L = l_last + a Σ_earlier l_s + b Σ_all mean_p CE(k_sp), with
    l_s = CE(z̄_s) + d mean_p CE(z_sp), z the logits of the classes, z̄ their mean over
    positions p and k the logits of the kinds of defect. Deep supervision (Lee et al.,
    AISTATS 2015) makes the stages that become features discriminative themselves; the
    dense term asks it of every position, which in an image mixed of two has the class
    of what it shows.

    :param logits: what the network says.
    :param shown: which classes the images show, and where.
    :param painted: which defects were painted, and where, if any were; a position has
        the share of the defect's densest pixel, so that thin lines count.
    :param smoothing: label smoothing of every term.
    :param auxiliary: a.
    :param dense: d.
    :param defects: b.
    """
    total = shown.mask.new_zeros(())
    for number, (level, kinds) in enumerate(
        zip(logits.classes, logits.kinds, strict=True)
    ):
        level, size = level.float(), (level.shape[2], level.shape[3])
        share = adaptive_avg_pool2d(shown.mask[:, None], size)[:, 0]
        term = _mixed_entropy(level.mean((2, 3)), shown, share.mean((1, 2)), smoothing)
        if dense:
            term = term + dense * _mixed_entropy(level, shown, share, smoothing)
        total = total + (auxiliary if number else 1.0) * term
        if painted is not None:
            share = adaptive_max_pool2d(painted.mask[:, None], size)[:, 0]
            total = total + defects * _mixed_entropy(
                kinds.float(), painted, share, smoothing
            )
    return total


def _mixed_entropy(
    logits: Tensor, targets: Mixed, share: Tensor, smoothing: float
) -> Tensor:
    """Return the cross entropy with the first label by 1 - share, the second by share.

    :param logits: (N, classes, …).
    :param share: (N, …).
    """
    log_p = logits.log_softmax(1)
    index = (-1, 1, *[1] * (logits.dim() - 2))

    def of(labels: Tensor) -> Tensor:
        where = labels.view(index).expand(-1, 1, *logits.shape[2:])
        return log_p.gather(1, where)[:, 0]

    found = (1 - share) * of(targets.first) + share * of(targets.second)
    return -((1 - smoothing) * found.mean() + smoothing * log_p.mean())


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
