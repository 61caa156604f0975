"""From a trained classifier to the weight file that the backbone loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avalanche_ad.features.backbone import chosen_strides
from avalanche_ad.features.embedded import Architecture, Trunk, metadata
from avalanche_ad.features.whitening import whitening
from avalanche_ad.pretraining.training import MEAN, STD, normalised

__all__ = ["export"]

_SAMPLES = 400_000
"""Feature vectors per level that the whitening is estimated from, at most."""


@torch.no_grad()
def export(
    trunk: Trunk,
    architecture: Architecture,
    photographs: Tensor,
    path: Path,
    *,
    strides: Sequence[int],
    card: Mapping[str, Any],
) -> None:
    """Write the stages up to the last stride, as float16, with their statistics.

    :param trunk: the network for inference.
    :param architecture: its sizes.
    :param photographs: (N, 3, S, S), uint8: what the whitening is estimated from.
    :param path: the file, complete or absent.
    :param strides: which stages become levels, by pixels per position.
    :param card: what is known about the weights, as JSON values.
    :raises RecipeError: for a stride that the network does not have.
    """
    from safetensors.torch import save_file

    chosen_strides(strides, architecture.strides, "")
    kept = architecture.up_to(strides[-1])
    tensors = {
        f"trunk.{key}": value.to("cpu", torch.float16).contiguous()
        for key, value in trunk.state_dict().items()
        if not key.startswith("stages.") or int(key.split(".")[1]) < len(kept.channels)
    }
    tensors |= {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    rounded = Trunk(kept)
    rounded.load_state_dict(
        {
            key.removeprefix("trunk."): value.float()
            for key, value in tensors.items()
            if key.startswith("trunk.")
        }
    )
    tensors |= _statistics(rounded.eval(), kept, photographs, strides)
    aside = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, aside, metadata(kept, card))
    aside.replace(path)


def _statistics(
    trunk: Trunk,
    architecture: Architecture,
    photographs: Tensor,
    strides: Sequence[int],
) -> dict[str, Tensor]:
    """Return ``mean_<stride>`` and ``matrix_<stride>`` of every level."""
    rows: dict[int, list[Tensor]] = {stride: [] for stride in strides}
    generator = torch.Generator().manual_seed(0)
    per_batch = -(-_SAMPLES * 64 // max(len(photographs), 1))
    for part in torch.split(photographs, 64):
        maps = trunk(normalised(part.float() / 255.0))
        for stride in strides:
            level = maps[architecture.stage(stride)]
            vectors = level.permute(0, 2, 3, 1).flatten(0, 2)
            order = torch.randperm(len(vectors), generator=generator)
            rows[stride].append(vectors[order[:per_batch]])
    found = {}
    for stride, parts in rows.items():
        found[f"mean_{stride}"], found[f"matrix_{stride}"] = whitening(torch.cat(parts))
    return found
