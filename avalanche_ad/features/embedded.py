"""A compact residual network trained on photographs by the project's own command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features.backbone import Backbone, chosen_strides, first_line

__all__ = ["Architecture", "EmbeddedBackbone", "Trunk"]

METADATA_KEY = "avalanche_ad.embedded"
"""Under this key a weight file's metadata hold architecture and card as JSON."""

_FORMAT = 1
_MEND = "write it again by `python -m avalanche_ad.pretraining`"


@dataclass(frozen=True)
class Architecture:
    """A residual network of basic blocks behind a 3 x 3 stem of stride 2.

    :param stem: channels of the stem.
    :param channels: channels of each stage; the first keeps the stem's stride 2, each
        further one doubles it.
    :param blocks: basic blocks of each stage.
    """

    stem: int = 24
    channels: tuple[int, ...] = (24, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 2)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of each stage's output."""
        return tuple(2 ** (stage + 1) for stage in range(len(self.channels)))

    def stage(self, stride: int) -> int:
        """Return the index of the stage whose output has this stride."""
        return self.strides.index(stride)

    def up_to(self, stride: int) -> Architecture:
        """Return the same network without the stages behind this stride."""
        stages = self.stage(stride) + 1
        return Architecture(self.stem, self.channels[:stages], self.blocks[:stages])


class _Block(nn.Module):
    """A basic residual block whose batch normalisation is folded into its filters.

    y = relu(W₂ ∗ relu(W₁ ∗ x + b₁) + b₂ + S ∗ x), S a 1 x 1 filter or the identity.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        plain = stride == 1 and channels_in == channels
        self.shortcut = None if plain else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(relu(self.conv1(x)))
        return relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Trunk(nn.Module):
    """The network for inference: no classifier, batch normalisation folded.

    :param architecture: its sizes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, architecture.stem, 3, 2, 1)
        stages, width = [], architecture.stem
        for number, (channels, blocks) in enumerate(
            zip(architecture.channels, architecture.blocks, strict=True)
        ):
            stage = nn.Sequential()
            for block in range(blocks):
                stride = 2 if number and not block else 1
                stage.append(_Block(width, channels, stride))
                width = channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.architecture = architecture

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return every stage's map (N, C, H, W) of normalised images (N, 3, S, S)."""
        x = relu(self.stem(images))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class EmbeddedBackbone(Backbone):
    """Take feature levels of a network that the project trains.

    A narrow residual network trained on natural photographs by
    ``python -m avalanche_ad.pretraining``; what it was trained on, for how long and
    how well it does is in :attr:`card`. A level of stride s is the output of the stage
    of that stride, decorrelated (zero-phase whitening) by statistics of photographs,
    so all channels are of equal scale.

    :param strides: pixels per position of each level, rising; all that the weight file
        has statistics for by default.
    :param weights: a file written by ``python -m avalanche_ad.pretraining``; by
        default the one that the package holds.
    :param whiten: whether the channels of a level are decorrelated.
    :raises RecipeError: for strides that the network does not have.
    :raises WeightsError: when the file is missing, damaged or of another kind.
    """

    version = 1
    name = "embedded"

    def __init__(
        self,
        strides: Sequence[int] | None = None,
        *,
        weights: str | Path | None = None,
        whiten: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(whiten, bool):
            raise RecipeError(
                f"backbone embedded: whiten must be true or false, got {whiten!r}"
            )
        own = files("avalanche_ad.features") / "data" / "embedded.safetensors"
        with as_file(own) as path:
            source = path if weights is None else Path(weights)
            state, architecture, self.card = _read(source)
        self.whiten = whiten
        prefix = "matrix_"
        known = sorted(
            int(key.removeprefix(prefix)) for key in state if key.startswith(prefix)
        )
        chosen = known if strides is None else strides
        self.strides = tuple(chosen_strides(chosen, known, "backbone embedded: "))
        self.trunk = Trunk(architecture.up_to(self.strides[-1]))
        self._load(state, str(source))
        self.freeze()

    def __repr__(self) -> str:
        return f"EmbeddedBackbone(strides={self.strides}, whiten={self.whiten})"

    def describe(self) -> Mapping[str, Any]:
        """Return all that decides the features besides the stored tensors."""
        return {
            "kind": self.name,
            "version": self.version,
            "strides": self.strides,
            "whiten": self.whiten,
        }

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, C), finest first, of images (N, 3, S, S)."""
        images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last))
        sizes = self.trunk.architecture
        levels = []
        for stride in self.strides:
            level = maps[sizes.stage(stride)].permute(0, 2, 3, 1)
            if self.whiten:
                mean = self.get_buffer(f"mean_{stride}")
                level = (level - mean) @ self.get_buffer(f"matrix_{stride}")
            levels.append(level)
        return levels

    def _load(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take the tensors this selection of strides needs, as float32."""
        trunk = {f"trunk.{key}": v.shape for key, v in self.trunk.state_dict().items()}
        sizes = self.trunk.architecture
        widths = {s: sizes.channels[sizes.stage(s)] for s in self.strides}
        shapes: dict[str, tuple[int, ...]] = {"mean": (3,), "std": (3,), **trunk}
        if self.whiten:
            shapes |= {f"mean_{stride}": (width,) for stride, width in widths.items()}
            shapes |= {f"matrix_{stride}": (w, w) for stride, w in widths.items()}
        for key, shape in shapes.items():
            if key not in state:
                raise WeightsError(
                    f"weight file {source}: tensor '{key}' is missing; {_MEND}"
                )
            if tuple(state[key].shape) != tuple(shape):
                raise WeightsError(
                    f"weight file {source}: '{key}' has shape "
                    f"{tuple(state[key].shape)}, expected {tuple(shape)} of the "
                    f"network it names; {_MEND}"
                )
            value = state[key].to(torch.float32)
            if key in trunk:
                self.trunk.get_parameter(key.removeprefix("trunk.")).data.copy_(value)
            else:
                image = key in ("mean", "std")
                self.register_buffer(key, value.reshape(1, 3, 1, 1) if image else value)


def metadata(architecture: Architecture, card: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a weight file.

    :param architecture: the sizes of the network.
    :param card: what it was trained on and how well it does, as JSON values.
    """
    content = {
        "format": _FORMAT,
        "architecture": asdict(architecture),
        "card": dict(card),
    }
    return {METADATA_KEY: json.dumps(content, sort_keys=True)}


def _read(path: Path) -> tuple[dict[str, Tensor], Architecture, dict[str, Any]]:
    """Return the tensors, the architecture and the card of a weight file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"weight file {path} does not exist; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(METADATA_KEY)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"weight file {path} cannot be read as safetensors ({first_line(error)}); "
            "copy it again or give a file of `python -m avalanche_ad.pretraining`"
        ) from error
    if found is None:
        raise WeightsError(
            f"weight file {path} is not of the embedded backbone; expected a file of "
            "`python -m avalanche_ad.pretraining` (for a timm model's weights take "
            "backbone 'timm:<model>')"
        )
    try:
        content = json.loads(found)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, expected {_FORMAT}")
        sizes = content["architecture"]
        architecture = Architecture(
            int(sizes["stem"]),
            tuple(int(width) for width in sizes["channels"]),
            tuple(int(count) for count in sizes["blocks"]),
        )
        if len(architecture.channels) != len(architecture.blocks):
            raise ValueError("stages without blocks")
        card = dict(content["card"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"weight file {path}: its description is damaged or of another version "
            f"({error}); {_MEND}"
        ) from error
    return state, architecture, card
