"""How the networks of a category start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from avalanche_ad.models.context_flow.ensemble import CategoryEnsemble
from avalanche_ad.models.context_flow.flow import ContextFlow
from avalanche_ad.models.context_flow.low_rank import adapted
from avalanche_ad.models.context_flow.networks import CategoryNetworks

__all__ = ["Start"]


@dataclass(frozen=True)
class Start:
    """Makes a category's networks; see :class:`ContextFlowGMM` for most parameters.

    :param widths: D of each feature level.

    >>> start = Start((4,), code_channels=0, couplings=1, hidden=8, head=8, critic=8)
    >>> len(start.category(0, [], start.base())), len(start.base())
    (0, 0)
    """

    widths: tuple[int, ...]
    code_channels: int = 16
    couplings: int = 6
    hidden: int = 128
    kernel: int = 1
    clamp: float = 1.5
    head: int = 256
    critic: int = 256
    rank: int = 0
    auxiliary: int = 0
    seed: int = 0
    contrast: bool = True

    def base(self) -> nn.ModuleList:
        """Return the flows that categories share, per level; none without ``rank``."""
        return nn.ModuleList(self._flows(self._seed_of(-1, 0)) if self.rank else ())

    def category(
        self, category: int, images: Sequence[Tensor], base: nn.ModuleList
    ) -> CategoryEnsemble:
        """Return the networks of a category.

        :param category: category index; decides, with ``seed``, where they start.
        :param images: fingerprints of those that each network leaves out.
        :param base: what :meth:`base` made.
        """
        networks = []
        for index in range(len(images)):
            seed = self._seed_of(category, index)
            flows = [
                adapted(flow, self.rank, seed + level, self.auxiliary)  # type: ignore[arg-type]
                for level, flow in enumerate(base)
            ] or list(self._flows(seed))
            added = (self.head, self.critic, seed + 100, self.contrast)
            networks.append(CategoryNetworks(flows, *added))
        return CategoryEnsemble(networks, images)

    def _seed_of(self, category: int, index: int) -> int:
        return self.seed * 100_003 + 101 * (category + 1) + 50 * index

    def _flows(self, seed: int) -> Iterator[ContextFlow]:
        for index, width in enumerate(self.widths):
            yield ContextFlow(
                width,
                self.code_channels,
                self.couplings,
                self.hidden,
                self.kernel,
                self.clamp,
                seed + index,
            )
