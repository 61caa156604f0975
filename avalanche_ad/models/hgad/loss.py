"""HGAD's losses as pure functions, and the criterion that strategies are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.hgad.latents import Latents, LevelLatents
from avalanche_ad.models.hgad.mixture import (
    category_log_likelihood,
    inner_centers,
    squared_distances,
)
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.losses import (
    checked_reduction,
    image_loss,
    reduced,
    with_columns,
)
from avalanche_ad.models.scoring import negative_entropy

__all__ = ["FlowGMMLoss", "HGADTerms", "aligned_loss", "hgad_terms"]


class HGADTerms(NamedTuple):
    """The five terms of one level, each per image (N,).

    ``inter`` L_g, ``mutual_information`` L_mi (to be maximised), ``entropy`` L_e,
    ``intra`` L_gi and ``likelihood`` L_z; the last two are zero while the inner
    mixture is left out.

    >>> HGADTerms._fields
    ('inter', 'mutual_information', 'entropy', 'intra', 'likelihood')
    """

    inter: Tensor
    mutual_information: Tensor
    entropy: Tensor
    intra: Tensor
    likelihood: Tensor


def hgad_terms(
    level: LevelLatents, target: Tensor, smoothing: float = 0.02, intra: bool = True
) -> HGADTerms:
    """Return HGAD's loss terms of one level, averaged over positions.

    With d_c = ‖z−μ_c‖², logπ = log_softmax(φ), ỹ the smoothed one-hot target
    (1−ε)·1[y] + ε/C, q = logsumexp_k(−½d_yk + logω_yk) and sg the stop-gradient:

    - L_g = (−logsumexp_c(−½d_c + logπ_c) − J) / D
    - L_mi = Σ_c ỹ_c [log_softmax_c(−½d_c + sg logπ_c) − sg logπ_c]
    - L_e = H(softmax_c(−½d_c))
    - L_gi = (−q − J) / D
    - L_z = −logsigmoid((q − ½D·log 2π + J) / D)

    :param level: latents (N, H, W, D) and the mixture's parameters.
    :param target: row of the centre group of each image's category, (N,).
    :param smoothing: ε.
    :param intra: whether to compute L_gi and L_z.
    :return: five tensors (N,).

    Source: Yao et al., ECCV 2024, arXiv 2403.13349, Eq. 6 and 8-10, with the
    constants of the released code.
    """
    dimensions = level.z.shape[-1]
    z = level.z.flatten(1, 2)
    log_det = level.log_det.flatten(1)
    negative_half = -0.5 * squared_distances(z, level.centers[:, 0])
    log_prior = level.class_logits.log_softmax(0)

    inter = (-torch.logsumexp(negative_half + log_prior, -1) - log_det) / dimensions
    fixed_prior = log_prior.detach()
    posterior = (negative_half + fixed_prior).log_softmax(-1) - fixed_prior
    categories = posterior.shape[-1]
    own = posterior.gather(-1, target[:, None, None].expand(-1, z.shape[1], 1))
    mutual_information = (1 - smoothing) * own.squeeze(
        -1
    ) + smoothing / categories * posterior.sum(-1)
    entropy = -negative_entropy(-2 * negative_half)

    if intra:
        log_likelihood = category_log_likelihood(
            z,
            log_det,
            inner_centers(level.centers)[target],
            level.inner_logits[target],
        )
        likelihood = -F.logsigmoid(log_likelihood / dimensions).mean(1)
        constant = 0.5 * torch.log(log_det.new_tensor(2 * torch.pi))
        inner = (-log_likelihood / dimensions - constant).mean(1)
    else:
        inner = likelihood = inter.new_zeros(len(inter))
    return HGADTerms(
        inter.mean(1), mutual_information.mean(1), entropy.mean(1), inner, likelihood
    )


def aligned_loss(level: LevelLatents, categories: Tensor) -> Tensor:
    """Return −mean_p [log p(z|y) + J] / D under the aligned mixtures, per image (N,).

    The negative log-likelihood of the features, in nats per channel: what a flow is
    trained by where its mixture is learned by statistics.

    :param level: latents (N, H, W, D) that carry the level's aligned mixtures.
    :param categories: category index of each image (N,).
    :raises TrainingError: when a category has no aligned mixture.
    """
    mixture, dimensions = level.mixture, level.z.shape[-1]
    found = level.log_det.flatten(1).mean(1)
    for category in sorted(set(categories.tolist())):
        if (
            mixture is None
            or category >= len(mixture.known)
            or not mixture.known[category]
        ):
            raise TrainingError(
                f"category {category} has no aligned mixture to be trained under: "
                "use IncrementalMixturePlugin, which starts them"
            )
        rows = (categories == category).nonzero().flatten()
        z = level.z[rows].flatten(0, 2)
        likelihood = mixture.log_likelihood(z, rows.new_tensor([category])).view(
            len(rows), -1
        )
        found = found.index_add(0, rows, likelihood.mean(1))
    return -found / dimensions


class FlowGMMLoss(nn.Module):
    """HGAD's training loss as a criterion ``criterion(model(x), y)``.

    Summed over levels: λ1·L_g − λ2·L_mi + L_e + L_gi + L_z. The dense latents come
    with the model's output. In evaluation, where no gradient is wanted, the image-level
    loss (:func:`image_loss`) takes their place, and so it does for a PackNet model in
    evaluation mode, which has latents for every task, and in training for outputs that
    have lost theirs, if ``image_level`` allows it.

    :param lambda1: weight of L_g.
    :param lambda2: weight of L_mi.
    :param smoothing: label smoothing ε.
    :param reduction: ``"mean"``, ``"sum"`` or ``"none"`` over images.
    :param image_level: whether an output without latents (sliced, or computed with) is
        trained by the image-level loss; refused otherwise, since that is another loss.

    ``intra`` says whether the inner mixture takes part; HGAD leaves it out in the
    first epochs, which :class:`~avalanche_ad.training.plugins.IntraClassWarmupPlugin`
    does. Of latents that carry aligned mixtures, as where an alignment trains the flow
    (:class:`~avalanche_ad.models.alignment.Alignment`), the loss is
    :func:`aligned_loss` in the place of HGAD's terms. ``listeners`` are told the
    latents and categories of every minibatch. ``terms`` holds the last minibatch's
    terms without a graph, (levels, 5), named by ``term_names``.

    Source: Yao et al., ECCV 2024, Eq. 11.

    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((2, 2, 4),)), couplings=2, condition_channels=4)
    >>> model.add_categories([0, 1])
    >>> criterion = FlowGMMLoss(reduction="none")
    >>> criterion(model(torch.zeros(2, 16)), torch.tensor([0, 1])).shape
    torch.Size([2])
    """

    term_names = HGADTerms._fields
    terms: Tensor | None

    def __init__(
        self,
        lambda1: float = 1.0,
        lambda2: float = 100.0,
        smoothing: float = 0.02,
        reduction: str = "mean",
        image_level: bool = False,
    ) -> None:
        super().__init__()
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.smoothing = smoothing
        self.reduction = checked_reduction(reduction)
        self.image_level = image_level
        self.intra = True
        self.listeners: list[Callable[[Latents, Tensor], None]] = []
        self.terms = None

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a minibatch.

        :param output: the model's output (N, C).
        :param target: category indices (N,).
        :raises TrainingError: when a target is a category the model does not know, or
            an output that is trained on has lost its latents.
        """
        latents = latents_of(output)
        if latents is None and output.requires_grad and not self.image_level:
            raise TrainingError(
                "FlowGMMLoss was given an output to train on that has lost its dense "
                "latents, as every slice or sum of a model's output has: give it the "
                "tensor that model(x) returned, or allow the image-level loss, which "
                "is another, with FlowGMMLoss(image_level=True)"
            )
        if isinstance(latents, Latents) and output.requires_grad:
            for listener in self.listeners:
                listener(latents, target)
            if all(level.mixture is not None for level in latents.levels):
                self.terms = None
                loss = torch.stack(
                    [aligned_loss(level, target) for level in latents.levels]
                ).sum(0)
            else:
                loss = self._dense(latents, target)
        else:
            self.terms = None
            loss = image_loss(with_columns(output, target), target)
        return reduced(loss, self.reduction)

    def _dense(self, latents: Latents, target: Tensor) -> Tensor:
        known = latents.known
        row = torch.searchsorted(known, target).clamp_max(max(len(known) - 1, 0))
        if not len(known) or not torch.equal(known[row], target):
            missing = sorted(set(target.tolist()) - set(known.tolist()))
            raise TrainingError(
                f"categories {missing} are not known to the model (known: "
                f"{known.tolist()}): call its adaptation with their experience first; "
                "a PackNet model knows in training its current task's alone and takes "
                "no replay"
            )
        total = target.new_zeros(len(target), dtype=latents.levels[0].z.dtype)
        report = []
        for level in latents.levels:
            terms = hgad_terms(level, row, self.smoothing, self.intra)
            total = total + (
                self.lambda1 * terms.inter
                - self.lambda2 * terms.mutual_information
                + terms.entropy
                + terms.intra
                + terms.likelihood
            )
            report.append(torch.stack([term.detach().mean() for term in terms]))
        self.terms = torch.stack(report)
        return total
