"""What the networks of the embedded backbone have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

__all__ = ["Architecture"]


class Architecture(ABC):
    """The sizes of a network whose stages have strides 2, 4, 8 and so on.

    >>> from avalanche_ad.features.residual_trunk import ResidualArchitecture
    >>> ResidualArchitecture(channels=(24, 64), blocks=(1, 1)).strides
    (2, 4)
    """

    kind: ClassVar[str]
    channels: tuple[int, ...]
    """Channels of each stage's output."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of each stage's output."""
        return tuple(2 ** (stage + 1) for stage in range(len(self.channels)))

    def stage(self, stride: int) -> int:
        """Return the index of the stage whose output has this stride."""
        return self.strides.index(stride)

    @abstractmethod
    def up_to(self, stride: int) -> Architecture:
        """Return the same network without the stages behind this stride."""

    @abstractmethod
    def trunk(self) -> Trunk:
        """Return a network of these sizes, its weights random."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Architecture:
        """Return what :meth:`to_json` described.

        :raises ValueError, KeyError, TypeError: when it is something else.
        """


class Trunk(nn.Module):
    """A network for inference: no classifier, batch normalisation folded.

    Its stages are ``stages.0``, ``stages.1``, … of the state dict.
    """

    architecture: Architecture
    stem: nn.Conv2d
    stages: nn.ModuleList

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return every stage's map (N, C, H, W) before any last rectifier.

        :param images: normalised, (N, 3, S, S).
        """
        raise NotImplementedError
