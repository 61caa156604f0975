"""What density models share that map features through flows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.alignment import Alignment
from avalanche_ad.models.alignment.mixtures import AlignedCovariance
from avalanche_ad.models.density_model import DensityModel
from avalanche_ad.models.scores import score_named

__all__ = ["FlowModel"]


class FlowModel(DensityModel):
    """A density model with a flow z = f(x; position) for every feature level.

    Its ``alignment`` holds statistics of features and mixtures that follow the flow,
    where a plugin keeps some. What rehearses, freezes or aligns a flow works on any
    such model.

    :param arguments: see :class:`DensityModel`.

    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((2, 2, 4),)), couplings=2, condition_channels=4)
    >>> [part.shape for part in model.latent_level(0, torch.zeros(3, 2, 2, 4))]
    [torch.Size([3, 4, 4]), torch.Size([3, 4])]
    """

    flows: nn.ModuleList
    """One per level, with ``blocks`` from the data on and ``inverse(z, condition)``."""
    seed: int
    flow_per_task: bool = False
    """Whether tasks have flows of their own, so that no mixture can follow one."""
    kernel: int = 1
    """Positions a side that a flow sees at once; above 1 it maps whole maps alone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.alignment = Alignment(self.layout)

    @abstractmethod
    def latent_level(
        self, index: int, features: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Push one level's features through its flow.

        :param index: level.
        :param features: (N, H, W, D).
        :param positions: indices (P,) of the positions wanted, all of H·W by default.
        :return: latents (N, P, D) and log-determinants (N, P).
        """

    @abstractmethod
    def condition(self, index: int, positions: Tensor) -> Tensor | None:
        """Return what a level's flow is conditioned on.

        :param index: level.
        :param positions: indices (P,) into the level's H·W positions.
        :return: (P, channels), ``None`` where the flow has no condition.
        """

    @abstractmethod
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Draw latents of one level and the features that the flow maps to them.

        :param index: level.
        :param categories: known category indices (P,).
        :param positions: indices (P,) into the level's H·W positions.
        :param generator: source of the draws, on the model's device.
        :param inner: draw from all of a category's mixture; else around its centre.
        :return: latents z (P, D) and features x (P, D).
        """

    def category_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have a row a category; here none."""
        return []

    def category_centers(self, index: int) -> Tensor:
        """Return where each category lies in a level's latent space, (C, D).

        :param index: level.
        :raises TrainingError: for a model that has no such place.
        """
        raise TrainingError(f"{self.kind} has no centre of each category")

    def named_parts(self, categories: Sequence[int]) -> dict[str, list[Tensor]]:
        """Return the parameters by the part of the model that they are of.

        :param categories: of what has a row a category, these rows.
        :return: here the flows' blocks, from the data on, all levels' together.
        """
        found: dict[str, list[Tensor]] = {}
        for flow in self.flows:
            for number, block in enumerate(flow.blocks, 1):  # type: ignore[arg-type]
                found.setdefault(f"flow block {number}", []).extend(block.parameters())
        return found

    @torch.no_grad()
    def latents_at(
        self, index: int, x: Tensor, positions: Tensor, flow: nn.Module | None = None
    ) -> Tensor:
        """Return where feature vectors are mapped to, without a graph.

        :param index: level.
        :param x: (P, D).
        :param positions: of each vector, indices (P,) into the level's H·W positions.
        :param flow: another flow than the level's own, one of before.
        :return: (P, D).
        """
        flow = self.flows[index] if flow is None else flow
        z: Tensor = flow(x, self.condition(index, positions))[0]
        return z

    def sample(
        self,
        categories: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> Tensor:
        """Draw features of given categories by inverting the flows.

        :param categories: known category indices (N,).
        :param generator: source of the draws, on the model's device.
        :param inner: see :meth:`sample_level`.
        :return: features (N, layout.size); positions are drawn independently,
            since the model's density has no dependence between them.
        """

        def draw(index: int, categories: Tensor, positions: Tensor) -> Tensor:
            return self.sample_level(index, categories, positions, generator, inner)[1]

        return self.layout.draw(categories, draw)

    def generate(self, batch_size: int) -> Tensor:
        """Draw features of categories drawn evenly from the known ones.

        The method that Avalanche's generative replay expects of a generator; around the
        centres, see :meth:`sample_level`.

        :param batch_size: N.
        :return: features (N, layout.size).
        """
        known = self.known_categories
        rows = torch.randint(len(known), (batch_size,), device=known.device)
        return self.sample(known[rows], inner=False)

    def align_to_statistics(
        self, samples: int, covariance: AlignedCovariance = "full", seed: int = 0
    ) -> None:
        """Align all categories that have statistics, see :meth:`Alignment.follow`."""
        room = self.num_categories
        self.alignment.follow(self, room, samples, covariance, seed)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        So it is where mixtures follow from statistics, unless those are of more images:
        the flow is trained on samples and images of all, but what it has of a single
        one is little beside the mixture.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        # the uncertainty is of the flow's own mixture
        follows = "likelihood" in score_named(self.score_kind, self.maps).maps
        return follows and self.alignment.refits(category, images)

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has, see :class:`LoadsWhole`."""
        start = "alignment."
        own = {
            name.removeprefix(start): tensor
            for name, tensor in state.items()
            if name.startswith(start)
        }
        # a state of some tensors alone says nothing of the alignment
        if own:
            self.alignment.make_room(own)
        super().make_room(state)
