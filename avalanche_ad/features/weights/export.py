"""Write the weight file that the backbone ``embedded`` loads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.backbone import chosen_strides
from avalanche_ad.features.backbones.embedded import (
    Columns,
    EmbeddedBackbone,
    metadata,
    stacked_channels,
)
from avalanche_ad.features.backbones.filterbank import STRIDES
from avalanche_ad.features.trunk import Architecture, Trunk
from avalanche_ad.features.whitening import whitening

__all__ = ["WEIGHTS", "check_levels", "export", "fold", "write_card"]

WEIGHTS = "embedded.safetensors"
"""The weight file's name in the folder that a command writes."""

_IMAGES = 3000
"""How many images the whitening is estimated from, at most."""
_SIDE = 96
"""Images are mirrored until they have so many pixels a side."""


def check_levels(
    architecture: Architecture, columns: Columns, strides: Sequence[int]
) -> None:
    """Tell in one line what cannot be exported.

    :raises RecipeError: for strides, stages or channels that there are not.
    """
    grids = STRIDES if columns.filters else architecture.strides
    chosen_strides(strides, grids, "--strides: ")
    chosen_strides(columns.stages, architecture.strides, "--stack: ")
    wide = sum(stacked_channels(architecture, columns))
    if columns.channels > wide:
        raise RecipeError(
            f"--level-channels {columns.channels} is more than the {wide} that are "
            "stacked; take fewer, or 0 for all"
        )


@torch.no_grad()
def export(
    trunk: Trunk,
    images: Tensor,
    path: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    columns: Columns,
    strides: Sequence[int],
    card: Mapping[str, Any],
) -> None:
    """Write the stages up to the last one stacked, as float16, with statistics.

    :param trunk: the network for inference.
    :param images: (N, 3, S, S), uint8 or in [0, 1]: what the whitening is estimated
        from.
    :param path: the file, complete or absent.
    :param mean: what the network subtracts from each colour channel.
    :param std: what it divides each by.
    :param columns: what a level is stacked of.
    :param strides: pixels per position of each level.
    :param card: what is known about the weights, as JSON values.
    :raises RecipeError: see :func:`check_levels`.
    """
    from safetensors.torch import save

    check_levels(trunk.architecture, columns, strides)
    kept = trunk.architecture.up_to(columns.stages[-1])
    tensors = {
        f"trunk.{key}": value.to("cpu", torch.float16).contiguous()
        for key, value in trunk.state_dict().items()
        if not key.startswith("stages.") or int(key.split(".")[1]) < len(kept.channels)
    }
    tensors |= {"mean": torch.tensor(mean), "std": torch.tensor(std)}
    wide = sum(stacked_channels(kept, columns))
    for stride in strides:  # for the file to be opened and its stacks to be measured
        tensors[f"mean_{stride}"] = torch.zeros(wide)
        tensors[f"matrix_{stride}"] = torch.zeros(wide, columns.channels or wide)
    aside = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = metadata(kept, columns, card)
    # not save_file, which writes for the owner alone, whatever the umask says
    aside.write_bytes(save(tensors, about))
    tensors |= _statistics(EmbeddedBackbone(weights=aside), images)
    aside.write_bytes(save(tensors, about))
    aside.replace(path)


def _statistics(backbone: EmbeddedBackbone, images: Tensor) -> dict[str, Tensor]:
    """Return ``mean_<stride>`` and ``matrix_<stride>`` of every level."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(images), generator=generator)[:_IMAGES]
    rows: dict[int, list[Tensor]] = {stride: [] for stride in backbone.strides}
    for part in torch.split(images[chosen], 64):
        part = part.float() / 255.0 if part.dtype == torch.uint8 else part.float()
        while part.shape[2] < _SIDE:
            part = torch.cat([part, part.flip(2)], dim=2)
            part = torch.cat([part, part.flip(3)], dim=3)
        levels = backbone.stacks(part)
        for stride, level in zip(backbone.strides, levels, strict=True):
            rows[stride].append(level.flatten(0, 2))
    columns = backbone.columns
    parts = stacked_channels(backbone.trunk.architecture, columns)
    found = {}
    for stride, stacked in rows.items():
        found[f"mean_{stride}"], found[f"matrix_{stride}"] = whitening(
            torch.cat(stacked), channels=columns.channels, parts=parts
        )
    return found


def fold(target: nn.Conv2d, conv: Any, norm: Any) -> None:
    """Give a filter the weights of another and of the normalisation behind it.

    :param target: it takes weight and bias.
    :param conv: a convolution of the same shape; it stays as it is.
    :param norm: its batch normalisation, in evaluation.
    """
    target.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())


def write_card(weights: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json`` beside a weight file, the file's SHA-256 in it.

    :param weights: the file that was written.
    :param card: what is known about the weights, as JSON values.
    """
    whole = {**card, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    weights.with_name("card.json").write_text(json.dumps(whole, indent=1) + "\n")
