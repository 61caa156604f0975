"""Frozen backbones: what turns images into feature levels and never learns.

Every backbone keeps one contract, that of :class:`Backbone`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features.layout import FeatureLayout

__all__ = ["Backbone", "chosen_strides", "first_line", "stored_state"]


class Backbone(nn.Module, ABC):
    """Map images to feature levels; no parameter trains and no statistic drifts.

    A new backbone is a subclass, in a file of ``avalanche_ad/features/backbones`` or of
    another package; see :class:`~avalanche_ad.registry.Registry`. It gives
    :meth:`extract` and :meth:`describe` and calls :meth:`freeze` at the end of its
    constructor, whose keyword arguments are its options.

    :ivar name: short name for recipes and reports, for example ``"timm:resnet18"``.
    :ivar calls: how often images went through, so that a run can prove that its
        features came from the cache.

    >>> class Grey(Backbone):
    ...     name = "grey"
    ...     def __init__(self, stride: int = 4):
    ...         super().__init__()
    ...         self.stride = stride
    ...         self.freeze()
    ...     def describe(self):
    ...         return {"kind": self.name, "version": 1, "stride": self.stride}
    ...     def extract(self, images):
    ...         grey = images.mean(dim=1, keepdim=True)
    ...         means = nn.functional.avg_pool2d(grey, self.stride)
    ...         return [means.permute(0, 2, 3, 1)]
    >>> Grey(8).layout(64)
    FeatureLayout(levels=((8, 8, 1),))
    """

    name: str = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self._layouts: dict[int, FeatureLayout] = {}

    @classmethod
    def check(cls, *arguments: Any, **options: Any) -> None:  # noqa: B027
        """Refuse options of wrong values, without building the backbone.

        :param arguments: none, where the constructor takes keyword arguments alone.
        :param options: the constructor's, of the right types.
        :raises RecipeError: naming the first that is wrong.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, C), finest first, of images (N, 3, S, S)."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Return all that decides the features besides the stored tensors."""

    def freeze(self) -> None:
        """Stop every parameter from training."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode, whatever ``mode``: statistics must not drift."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature levels of a batch.

        :param images: RGB, shape (N, 3, S, S), values in [0, 1].
        :return: one tensor (N, H, W, C) per level, finest first.
        :raises ValueError: when the shape is another.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                "expected images of shape (N, 3, height, width), "
                f"got {tuple(images.shape)}"
            )
        self.calls += 1
        return [level.contiguous() for level in self.extract(images)]

    @torch.no_grad()
    def layout(self, image_size: int) -> FeatureLayout:
        """Return the shapes of the levels for square images of one size.

        :param image_size: side of the image in pixels.
        """
        if image_size not in self._layouts:
            tensors = (*self.buffers(), *self.parameters())
            like = next((one for one in tensors if one.is_floating_point()), None)
            like = torch.zeros(0) if like is None else like
            images = like.new_zeros(1, 3, image_size, image_size)
            shapes = [tuple(level.shape[1:]) for level in self.extract(images)]
            self._layouts[image_size] = FeatureLayout(
                tuple((height, width, channels) for height, width, channels in shapes)
            )
        return self._layouts[image_size]

    def fingerprint(self) -> str:
        """Return a hexadecimal digest of everything that decides the features.

        That is :meth:`describe` and the content of every stored tensor: weights,
        normalisation, whitening.
        """
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()


def stored_state(path: Path) -> dict[str, Tensor]:
    """Read a weight file without running any code that it may hold.

    :param path: a ``.safetensors`` file, or a PyTorch file of a state dict, alone or
        under the key ``state_dict`` or ``model``.
    :return: the tensors by name, without the prefix ``module.``.
    :raises WeightsError: when the file is missing, damaged or something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"weight file {path} does not exist; check the path")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"weight file {path} cannot be read ({first_line(error)}); "
            "copy or download it again"
        ) from error
    except Exception as error:
        # torch.load names no common class for damage and for refused code.
        raise WeightsError(
            f"weight file {path} is damaged or holds more than tensors "
            f"({first_line(error)}); expected a safetensors file or a state dict "
            "saved by torch.save"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(
            f"weight file {path} holds {type(state).__name__}, expected a state dict "
            "of named tensors; save model.state_dict()"
        )
    return {
        str(key).removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def chosen_strides(strides: object, known: Sequence[int], where: str) -> list[int]:
    """Return the strides when they are a rising choice of the known ones.

    :param strides: what was asked for.
    :param known: all there are, rising.
    :param where: begins the message.
    :raises RecipeError: when they are another thing.
    """
    chosen = list(strides) if isinstance(strides, Sequence) else [strides]
    if not chosen or chosen != [stride for stride in known if stride in chosen]:
        raise RecipeError(
            f"{where}strides must be rising numbers out of {list(known)}, got {chosen}"
        )
    return chosen


def first_line(error: BaseException) -> str:
    """Return what an error says, shortened to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
