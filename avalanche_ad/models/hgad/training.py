"""How HGAD trains: its loss, its groups of parameters, what a step sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.hgad.latents import Latents, MeanLatents
from avalanche_ad.models.hgad.loss import FlowGMMLoss
from avalanche_ad.models.hgad.mixture import HierarchicalMixture
from avalanche_ad.models.hgad.options import FlowGMMOptions
from avalanche_ad.registry.options import ModelOptions

__all__ = ["drawn_positions"]


class TrainsAsHGAD(FlowModel):
    """The part of a :class:`FlowGMM` that strategies train it by.

    :param arguments: see :class:`FlowModel`.
    """

    mixtures: nn.ModuleList

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mean_latents = MeanLatents()

    @classmethod
    def built_from(
        cls, options: ModelOptions
    ) -> tuple[type[AnomalyModel], dict[str, Any]]:
        """Return this class, or with ``packnet`` that whose tasks own their parts."""
        assert isinstance(options, FlowGMMOptions)
        arguments = options.model_dump(exclude={"type", "packnet"})
        if not options.packnet:
            return cls, arguments
        from avalanche_ad.models.hgad.packnet_flow_gmm import PackNetFlowGMM

        if cls.kind not in ("flow_gmm", PackNetFlowGMM.kind):
            raise TrainingError(
                f"packnet is of flow_gmm, and {cls.__name__} is another model: leave "
                "it out"
            )
        if options.packnet == "flow":
            arguments["own_mixtures"] = False
        return PackNetFlowGMM, arguments

    def criterion(self, **options: Any) -> nn.Module:
        """Return HGAD's loss with the weights and the smoothing of ``[training]``."""
        return FlowGMMLoss(
            options.get("lambda1", 1.0),
            options.get("lambda2", 100.0),
            options.get("label_smoothing", 0.02),
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return HGAD's loss per image, see :class:`FlowGMMLoss`, (N,)."""
        found: Tensor = FlowGMMLoss(reduction="none")(output, target)
        return found

    def parameter_groups(
        self, lr: float, weight_decay: float, **options: Any
    ) -> list[dict[str, Any]]:
        """Return one group for the flows and two for the mixtures.

        Weight decay acts on the flows alone. HGAD's code asks for a three times higher
        rate for the centres and then overwrites it; ``centers_lr_factor`` is 1
        therefore.

        Source: Yao et al., ECCV 2024, Sec. 4.1, and its released code.
        """
        factor = options.get("centers_lr_factor", 1.0)
        flows, centers, weights = [], [], []
        for name, parameter in self.named_parameters():
            if ".centers" in name:
                centers.append(parameter)
            elif "class_logits" in name or "inner_logits" in name:
                weights.append(parameter)
            else:
                flows.append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": flows, "weight_decay": weight_decay},
            {"params": centers, "weight_decay": 0.0, "lr": lr * factor},
            {"params": weights, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    @property
    def features(self) -> Tensor | None:
        """Mean latents of the last forward pass, (N, sum of the levels' D).

        What Avalanche's feature distillation reads. ``None`` when the output of a pass
        with gradient is gone.
        """
        return self._mean_latents.read()

    @features.setter
    def features(self, value: None) -> None:
        self._mean_latents = MeanLatents()

    def category_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have a row a category: μ, δ, φ and ψ."""
        return list(self.mixtures.parameters())

    def category_centers(self, index: int) -> Tensor:
        """Return the main centres μ of all categories, (C, D)."""
        mixture = self.mixtures[index]
        assert isinstance(mixture, HierarchicalMixture)
        return mixture.centers[:, 0]

    def named_parts(self, categories: Sequence[int]) -> dict[str, list[Tensor]]:
        """Return the parameters by part: φ, ψ, μ, δ and the flows' blocks."""
        found: dict[str, list[Tensor]] = {}
        for mixture in self.mixtures:
            assert isinstance(mixture, HierarchicalMixture)
            for part, value in mixture.named_parts(categories).items():
                found.setdefault(part, []).append(value)
        return {**found, **super().named_parts(categories)}

    def note_features(self, output: Tensor, latents: Latents) -> None:
        """Remember the mean latents of an output, see :attr:`features`."""
        self._mean_latents.note(output, latents)


def drawn_positions(features: Tensor, share: float, kernel: int = 1) -> Tensor | None:
    """Return the positions that a training step sees, ``None`` for all.

    With a kernel above 1 they are a window, where neighbours are neighbours: √share of
    the rows and of the columns, at least as many as the kernel's, around a position
    drawn evenly and moved inside, so that edges are seen about half as often as the
    middle and not hardly ever.

    :param features: one level (N, H, W, D).
    :param share: of the positions, in (0, 1].
    :param kernel: of the flow.
    :return: indices into the H·W positions, (P,), or (H', W') of a window. They are
        drawn from the minibatch itself, so that a teacher sees what its student sees.
    """
    if share >= 1.0:
        return None
    sizes = features.shape[1:3]
    total = sizes[0] * sizes[1]
    digest = features.sum(dtype=torch.float32).view(torch.int32).item()
    generator = torch.Generator().manual_seed(int(digest))
    if kernel == 1:
        count = max(1, round(share * total))
        drawn = torch.randperm(total, generator=generator)[:count]
        return drawn.to(features.device)
    window = []
    for size in sizes:
        side = min(size, max(kernel, round(math.sqrt(share) * size)))
        middle = int(torch.randint(size, (), generator=generator))
        first = min(max(middle - side // 2, 0), size - side)
        window.append(torch.arange(first, first + side, device=features.device))
    rows, columns = window
    return rows[:, None] * sizes[1] + columns
