"""A residual network of basic blocks, the one that the project's own command trains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import relu, relu_

from avalanche_ad.features.trunk import Architecture, Trunk

__all__ = ["ResidualArchitecture", "ResidualTrunk"]


@dataclass(frozen=True)
class ResidualArchitecture(Architecture):
    """A residual network of basic blocks behind a 3 x 3 stem of stride 2.

    :param stem: channels of the stem.
    :param channels: channels of each stage; the first keeps the stem's stride 2, each
        further one doubles it.
    :param blocks: basic blocks of each stage.

    >>> ResidualArchitecture().up_to(8).channels
    (24, 64, 128)
    """

    stem: int = 24
    channels: tuple[int, ...] = (24, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 2)

    kind = "residual"

    def up_to(self, stride: int) -> ResidualArchitecture:
        """Return the same network without the stages behind this stride."""
        stages = self.stage(stride) + 1
        return ResidualArchitecture(
            self.stem, self.channels[:stages], self.blocks[:stages]
        )

    def trunk(self) -> ResidualTrunk:
        """Return a network of these sizes, its weights random."""
        return ResidualTrunk(self)

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ResidualArchitecture:
        """Return what :meth:`to_json` described."""
        found = cls(
            int(content["stem"]),
            tuple(int(width) for width in content["channels"]),
            tuple(int(count) for count in content["blocks"]),
        )
        if not found.channels or len(found.channels) != len(found.blocks):
            raise ValueError("stages without blocks")
        return found


class _Block(nn.Module):
    """A basic residual block whose batch normalisation is folded into its filters.

    Without its last rectifier: W₂ ∗ relu(W₁ ∗ x + b₁) + b₂ + S ∗ x, S a 1 x 1 filter or
    the identity.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        plain = stride == 1 and channels_in == channels
        self.shortcut = None if plain else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(relu_(self.conv1(x)))
        return y.add_(x if self.shortcut is None else self.shortcut(x))


class ResidualTrunk(Trunk):
    """Give every stage's map before its last rectifier.

    :param architecture: its sizes.

    >>> trunk = ResidualTrunk(ResidualArchitecture().up_to(4))
    >>> [level.shape[1:] for level in trunk(trunk.stem.weight.new_zeros(1, 3, 8, 8))]
    [torch.Size([24, 4, 4]), torch.Size([64, 2, 2])]
    """

    def __init__(self, architecture: ResidualArchitecture) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, architecture.stem, 3, 2, 1)
        stages, width = [], architecture.stem
        for number, (channels, blocks) in enumerate(
            zip(architecture.channels, architecture.blocks, strict=True)
        ):
            stage = nn.ModuleList()
            for block in range(blocks):
                stride = 2 if number and not block else 1
                stage.append(_Block(width, channels, stride))
                width = channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.architecture = architecture

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return every stage's map (N, C, H, W) before its last rectifier.

        :param images: normalised, (N, 3, S, S).
        """
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = relu(x)  # a copy, since the map is kept as it is
            assert isinstance(stage, nn.ModuleList)
            for number, block in enumerate(stage):
                x = block(relu_(x) if number else x)
            maps.append(x)
        return maps
