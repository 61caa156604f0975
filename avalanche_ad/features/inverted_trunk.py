"""A network of inverted residual blocks: EfficientNet-Lite, MobileNetV2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from avalanche_ad.features.trunk import Architecture, Trunk

__all__ = ["InvertedArchitecture", "InvertedTrunk"]


@dataclass(frozen=True)
class Block:
    """The sizes of an inverted residual block.

    :param kernel: side of the depthwise filters.
    :param hidden: channels of the depthwise filters.
    :param channels: channels of the output.
    """

    kernel: int
    hidden: int
    channels: int


@dataclass(frozen=True)
class InvertedArchitecture(Architecture):
    """Inverted residual blocks behind a 3 x 3 stem of stride 2.

    :param stem: channels of the stem.
    :param blocks: the blocks of each stage; a stage is all blocks of one stride, and
        the first block of each but the first stage doubles it.
    :param same: whether filters of stride 2 are padded as TensorFlow does, with what
        is odd at the lower right; by half the filter on all sides otherwise.

    >>> blocks = (Block(3, 8, 4),), (Block(3, 16, 6),)
    >>> sizes = InvertedArchitecture(8, blocks, same=True)
    >>> sizes.strides, sizes.channels
    ((2, 4), (4, 6))
    """

    stem: int
    blocks: tuple[tuple[Block, ...], ...]
    same: bool

    kind = "inverted"

    @property
    def channels(self) -> tuple[int, ...]:  # type: ignore[override]
        """Channels of each stage's output."""
        return tuple(stage[-1].channels for stage in self.blocks)

    def up_to(self, stride: int) -> InvertedArchitecture:
        """Return the same network without the stages behind this stride."""
        return InvertedArchitecture(
            self.stem, self.blocks[: self.stage(stride) + 1], self.same
        )

    def trunk(self) -> InvertedTrunk:
        """Return a network of these sizes, its weights random."""
        return InvertedTrunk(self)

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        blocks = [
            [[block.kernel, block.hidden, block.channels] for block in stage]
            for stage in self.blocks
        ]
        return {"stem": self.stem, "blocks": blocks, "same": self.same}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> InvertedArchitecture:
        """Return what :meth:`to_json` described."""
        blocks = tuple(
            tuple(Block(*(int(size) for size in block)) for block in stage)
            for stage in content["blocks"]
        )
        if not blocks or not all(blocks):
            raise ValueError("stages without blocks")
        return cls(int(content["stem"]), blocks, bool(content["same"]))


class _Inverted(nn.Module):
    """An inverted residual block, batch normalisation folded into its filters.

    x + P ∗ relu6(D ∗ relu6(E ∗ x)), E and P 1 x 1 filters, D depthwise ones; E is left
    out where it would not widen, x where the output is of another shape (Sandler et
    al., CVPR 2018).
    """

    def __init__(self, channels_in: int, sizes: Block, stride: int, same: bool) -> None:
        super().__init__()
        wide, kernel = sizes.hidden, sizes.kernel
        self.expand = None if wide == channels_in else nn.Conv2d(channels_in, wide, 1)
        padding = 0 if same and stride == 2 else kernel // 2
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, padding, groups=wide)
        self.project = nn.Conv2d(wide, sizes.channels, 1)
        self.plain = stride == 1 and channels_in == sizes.channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else relu6(self.expand(x), inplace=True)
        wide = relu6(self.depthwise(_padded(wide, self.depthwise)), inplace=True)
        y: Tensor = self.project(wide)
        return y.add_(x) if self.plain else y


class InvertedTrunk(Trunk):
    """Give the map of every stage's last block, which has no rectifier.

    :param architecture: its sizes.

    >>> trunk = InvertedTrunk(InvertedArchitecture(8, ((Block(3, 8, 4),),), same=True))
    >>> [level.shape[1:] for level in trunk(trunk.stem.weight.new_zeros(1, 3, 8, 8))]
    [torch.Size([4, 4, 4])]
    """

    def __init__(self, architecture: InvertedArchitecture) -> None:
        super().__init__()
        same = architecture.same
        self.stem = nn.Conv2d(3, architecture.stem, 3, 2, 0 if same else 1)
        stages, width = [], architecture.stem
        for number, blocks in enumerate(architecture.blocks):
            stage = nn.Sequential()
            for index, sizes in enumerate(blocks):
                stride = 2 if number and not index else 1
                stage.append(_Inverted(width, sizes, stride, same))
                width = sizes.channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.architecture = architecture

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return every stage's map (N, C, H, W).

        :param images: normalised, (N, 3, S, S).
        """
        x = relu6(self.stem(_padded(images, self.stem)), inplace=True)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _padded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return x with the zeros that TensorFlow's "same" adds, if the filter adds none.

    So many that ⌈H/2⌉ positions come of stride 2, half of them, rounded down, at the
    upper left.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if kernel == 1 or conv.padding[0]:
        return x
    sides: list[int] = []
    for length in (x.shape[3], x.shape[2]):
        missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides += [missing // 2, missing - missing // 2]
    return pad(x, sides)
