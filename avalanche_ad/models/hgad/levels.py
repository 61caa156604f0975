"""How the flow-GMM maps a level's features through its flow, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.hgad.mixture import HierarchicalMixture, inner_centers

__all__: list[str] = []


class MapsLevels(FlowModel):
    """The part of a :class:`FlowGMM` that calls its flows."""

    mixtures: nn.ModuleList

    def _mixture(self, index: int) -> HierarchicalMixture:
        mixture = self.mixtures[index]
        assert isinstance(mixture, HierarchicalMixture)
        return mixture

    def latent_level(
        self, index: int, features: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Push one level's features through its flow.

        :param index: level.
        :param features: (N, H, W, D).
        :param positions: indices (P,), or (H', W') of a window, of the positions
            wanted, all of H·W by default.
        :return: latents (N, P, D) and log-determinants (N, P).
        """
        x = features.flatten(1, 2)
        grid: tuple[int, int] | None = (features.shape[1], features.shape[2])
        code: Tensor = getattr(self, f"position_code_{index}")
        if positions is not None:
            grid = None
            if positions.dim() > 1:
                grid = (positions.shape[0], positions.shape[1])
            x, code = x[:, positions.flatten()], code[positions.flatten()]
        count, width, channels = x.shape
        flow = self.flows[index]
        assert isinstance(flow, ConditionalFlow)
        if not self.training and not torch.is_grad_enabled():
            return flow.of_images(x, code if code.shape[1] else None, grid)
        condition = code.repeat(count, 1) if code.shape[1] else None
        z, log_det = flow(x.reshape(-1, channels), condition, grid)
        return z.view(count, width, channels), log_det.view(count, width)

    def condition(self, index: int, positions: Tensor) -> Tensor | None:
        """Return what a level's flow is conditioned on.

        :param index: level.
        :param positions: indices (P,) into the level's H·W positions.
        :return: (P, condition_channels), ``None`` where the flow has no condition.
        """
        code: Tensor = getattr(self, f"position_code_{index}")
        return code[positions] if code.shape[1] else None

    @torch.no_grad()
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Draw latents of one level and the features that the flow maps to them.

        Per row k ~ softmax(ψ_c), z ~ N(μ_ck, I), x = f⁻¹(z; position). HGAD fits a
        category by its main Gaussian N(μ_c, I) and by its inner mixture, separately:
        while the inner mixture has been trained for a few epochs only, its initial
        offsets make it too wide, and the main Gaussian gives the better samples.

        :param index: level.
        :param categories: known category indices (P,).
        :param positions: indices (P,) into the level's H·W positions; with a kernel
            above 1 those of whole maps, one after the other.
        :param generator: source of the draws, on the model's device.
        :param inner: draw from the inner mixture; else z ~ N(μ_c, I).
        :return: latents z (P, D) and features x (P, D).
        :raises TrainingError: for single positions with a kernel above 1.
        """
        flow = self.flows[index]
        assert isinstance(flow, ConditionalFlow)
        grid = self._grid_of(index, positions) if flow.kernel > 1 else None
        mixture = self._mixture(index)
        if inner:
            weights = mixture.inner_logits[categories].softmax(-1)
            drawn = torch.multinomial(weights, 1, generator=generator).squeeze(1)
            centers = inner_centers(mixture.centers)[categories, drawn]
        else:
            centers = mixture.centers[categories, 0]
        noise = torch.randn(centers.shape, generator=generator, device=centers.device)
        z = centers + noise
        return z, flow.inverse(z, self.condition(index, positions), grid)

    def _grid_of(self, index: int, positions: Tensor) -> tuple[int, int] | None:
        """Return the shape of the maps that positions are all of, if they are."""
        height, width, _ = self.layout.levels[index]
        every = torch.arange(height * width, device=positions.device)
        maps, rest = divmod(len(positions), len(every))
        if rest or not torch.equal(positions, every.repeat(maps)):
            return None
        return height, width
