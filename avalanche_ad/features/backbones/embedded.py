"""A compact network trained on photographs, whose weights the package holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features.backbone import Backbone, chosen_strides, first_line
from avalanche_ad.features.backbones.filterbank import CHANNELS, FilterBank
from avalanche_ad.features.inverted_trunk import InvertedArchitecture
from avalanche_ad.features.residual_trunk import ResidualArchitecture
from avalanche_ad.features.trunk import Architecture

__all__ = ["Columns", "EmbeddedBackbone"]

METADATA_KEY = "avalanche_ad.embedded"
"""Under this key a weight file's metadata hold architecture and card as JSON."""

_FORMAT = 2
_COMMANDS = "`python -m avalanche_ad.features.weights.adopt`"
_MEND = f"write it again by {_COMMANDS}"
_KINDS: dict[str, type[Architecture]] = {
    kind.kind: kind for kind in (ResidualArchitecture, InvertedArchitecture)
}


@dataclass(frozen=True)
class Columns:
    """What a feature vector is stacked of: hypercolumns (Hariharan et al., CVPR 2015).

    :param stages: strides of the stages that are stacked.
    :param window: positions a side that a stage no coarser than the level is averaged
        over, so that a vector tolerates small shifts (PatchCore: Roth et al.,
        CVPR 2022).
    :param filters: whether the channels of :class:`FilterBank` are stacked too.
    :param channels: how many leading principal components are kept, 0 for all.

    >>> Columns(stages=(4, 8, 16), filters=True).channels
    128
    """

    stages: tuple[int, ...] = (4, 8)
    window: int = 3
    filters: bool = False
    channels: int = 128


def hypercolumns(
    maps: Mapping[int, Tensor], grid: tuple[int, int], window: int
) -> Tensor:
    """Stack maps of several strides at the positions of one grid.

    A map as fine as the grid or finer is averaged over ``window`` x ``window`` of its
    positions and then over the cells of the grid; a coarser one is interpolated.

    :param maps: (N, C, H, W) by stride.
    :param grid: height and width.
    :param window: an odd number.
    :return: (N, ΣC, height, width).
    """
    parts = []
    for level in maps.values():
        if level.shape[2] >= grid[0]:
            near = (window, 1, window // 2)
            level = avg_pool2d(level, *near, count_include_pad=False)
            level = adaptive_avg_pool2d(level, grid)
        else:
            level = interpolate(level, grid, mode="bilinear")
        parts.append(level)
    return torch.cat(parts, dim=1)


class EmbeddedBackbone(Backbone):
    """Take feature levels of the network in a weight file of the project's form.

    By default EfficientNet-Lite0 up to stride 16, trained on ImageNet, which the
    package holds; or another network of timm that
    :mod:`avalanche_ad.features.weights.adopt` took over, or a residual network that
    ``scripts/pretraining`` trained on photographs of one's own. :attr:`card` says where
    the weights come from.

    At every position of a level the outputs of several stages are stacked, if asked for
    with the channels of the :class:`FilterBank`, and the stack is projected to its
    leading principal components over drawn images or photographs, each of unit variance
    there. Which stages and how many components stands in the file.

    :param strides: pixels per position of each level, rising; all that the weight file
        has statistics for by default.
    :param weights: a file that one of the two wrote; by default the one that the
        package holds.
    :param whiten: whether the stack is projected; it is given whole otherwise.
    :raises RecipeError: for strides that the file has no statistics for.
    :raises WeightsError: when the file is missing, damaged or of another kind.

    >>> EmbeddedBackbone().layout(128)
    FeatureLayout(levels=((16, 16, 128),))
    """

    version = 2
    name = "embedded"

    def __init__(
        self,
        strides: Sequence[int] | int | None = None,
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
            state, architecture, self.columns, self.card = _read(source)
        self.whiten = whiten
        prefix = "matrix_"
        known = sorted(
            int(key.removeprefix(prefix)) for key in state if key.startswith(prefix)
        )
        chosen = known if strides is None else strides
        self.strides = tuple(chosen_strides(chosen, known, "backbone embedded: "))
        self.trunk = architecture.trunk()
        if self.columns.filters:
            self.bank = FilterBank(self.strides, whiten=False)
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
            "columns": asdict(self.columns),
        }

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, C), finest first, of images (N, 3, S, S)."""
        least = 10 * self.strides[-1] if self.columns.filters else 1
        if min(images.shape[2:]) < least:
            raise RecipeError(
                f"backbone embedded: images of {images.shape[2]} x {images.shape[3]} "
                f"pixels are too small for stride {self.strides[-1]}; take {least} "
                "pixels or more"
            )
        levels = self.stacks(images)
        if not self.whiten:
            return levels
        return [
            (level - self.get_buffer(f"mean_{stride}"))
            @ self.get_buffer(f"matrix_{stride}")
            for stride, level in zip(self.strides, levels, strict=True)
        ]

    def stacks(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, ΣC) before they are projected."""
        views = (images - self.get_buffer("mean")) / self.get_buffer("std")
        found = self.trunk(views.contiguous(memory_format=torch.channels_last))
        maps = dict(zip(self.trunk.architecture.strides, found, strict=True))
        stacked = {stride: maps[stride] for stride in self.columns.stages}
        levels = []
        for stride in self.strides:
            grid = (-(-images.shape[2] // stride), -(-images.shape[3] // stride))
            level = hypercolumns(stacked, grid, self.columns.window)
            levels.append(level.permute(0, 2, 3, 1))
        if self.columns.filters:
            filtered = self.bank.extract(images)
            levels = [
                torch.cat(both, dim=3) for both in zip(levels, filtered, strict=True)
            ]
        return levels

    def _load(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take the tensors this selection of strides needs, as float32."""
        trunk = {f"trunk.{key}": v.shape for key, v in self.trunk.state_dict().items()}
        sizes = self.trunk.architecture
        shapes: dict[str, tuple[int, ...]] = {"mean": (3,), "std": (3,), **trunk}
        if self.whiten:
            wide = sum(stacked_channels(sizes, self.columns))
            kept = self.columns.channels or wide
            shapes |= {f"mean_{stride}": (wide,) for stride in self.strides}
            shapes |= {f"matrix_{stride}": (wide, kept) for stride in self.strides}
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


def stacked_channels(architecture: Architecture, columns: Columns) -> tuple[int, ...]:
    """Return how many channels each part of the stack has before it is projected."""
    widths = [architecture.channels[architecture.stage(s)] for s in columns.stages]
    return (*widths, CHANNELS) if columns.filters else tuple(widths)


def metadata(
    architecture: Architecture, columns: Columns, card: Mapping[str, Any]
) -> dict[str, str]:
    """Return the metadata of a weight file.

    :param architecture: the sizes of the network.
    :param columns: what its levels are stacked of.
    :param card: where the weights come from, as JSON values.
    """
    content = {
        "format": _FORMAT,
        "architecture": {"kind": architecture.kind, **architecture.to_json()},
        "columns": asdict(columns),
        "card": dict(card),
    }
    return {METADATA_KEY: json.dumps(content, sort_keys=True)}


def _read(
    path: Path,
) -> tuple[dict[str, Tensor], Architecture, Columns, dict[str, Any]]:
    """Return the tensors, the architecture, the stack and the card of a weight file."""
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
            f"copy it again or give a file of {_COMMANDS}"
        ) from error
    if found is None:
        raise WeightsError(
            f"weight file {path} is not of the embedded backbone; expected a file of "
            f"{_COMMANDS} (for a timm model's weights take backbone 'timm:<model>')"
        )
    try:
        content = json.loads(found)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, expected {_FORMAT}")
        sizes = content["architecture"]
        kind = sizes.get("kind", ResidualArchitecture.kind)
        if kind not in _KINDS:
            raise ValueError(f"a network of kind '{kind}'")
        architecture = _KINDS[kind].from_json(sizes)
        stack = content["columns"]
        columns = Columns(
            tuple(int(stride) for stride in stack["stages"]),
            int(stack["window"]),
            bool(stack["filters"]),
            int(stack["channels"]),
        )
        if not set(columns.stages) <= set(architecture.strides):
            raise ValueError("stages stacked that the network lacks")
        card = dict(content["card"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"weight file {path}: its description is damaged or of another version "
            f"({error}); {_MEND}"
        ) from error
    return state, architecture, columns, card
