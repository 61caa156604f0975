"""Frozen backbones: what turns images into feature levels and never learns.

Every backbone keeps one contract, that of :class:`Backbone`. :class:`TimmBackbone` is
any convolutional or transformer model of the timm library.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features.layout import FeatureLayout

__all__ = ["Backbone", "TimmBackbone", "chosen_strides", "first_line", "stored_state"]


class Backbone(nn.Module, ABC):
    """Map images to feature levels; no parameter trains and no statistic drifts.

    A subclass gives :meth:`extract` and :meth:`describe`, then calls :meth:`freeze`
    at the end of its constructor.

    :ivar name: short name for reports, for example ``"timm:resnet18"``.
    :ivar calls: how often images went through, so that a run can prove that its
        features came from the cache.
    """

    name: str = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self._layouts: dict[int, FeatureLayout] = {}

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
            images = next(self.buffers()).new_zeros(1, 3, image_size, image_size)
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


class TimmBackbone(Backbone):
    """Take the feature levels of a timm model.

    :param name: the model's timm name, for example ``"wide_resnet50_2"``.
    :param stages: which of the model's stages become levels; by default 1, 2 and 3
        (for a residual network strides 4, 8 and 16), in form ``"hgad"`` stage 2.
    :param form: ``"stages"``: one level per stage. ``"hgad"``: one stage of the image
        at scales 1, 1/2 and 1/4, so that all levels are of equal width (Yao et al.,
        HGAD, ECCV 2024).
    :param pretrained: whether timm fetches its pretrained weights.
    :param weights: a local file with the model's weights instead, safetensors or a
        PyTorch state dict; never executed as code.
    :param random: take random weights on purpose, drawn from ``seed``. Of use in tests
        only: a random network is a poor judge of defects.
    :param seed: seed of the random weights.
    :raises RecipeError: for an unknown model or stage, or when none or several of
        ``pretrained``, ``weights`` and ``random`` are asked for.
    :raises WeightsError: when the weights cannot be had or do not fit.
    """

    version = 1

    def __init__(
        self,
        name: str,
        *,
        stages: Sequence[int] | None = None,
        form: Literal["stages", "hgad"] = "stages",
        pretrained: bool = False,
        weights: str | Path | None = None,
        random: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if form not in ("stages", "hgad"):
            raise RecipeError(
                f"backbone timm:{name}: unknown form '{form}'; "
                "expected 'stages' or 'hgad'"
            )
        if stages is None:
            stages = (1, 2, 3) if form == "stages" else (2,)
        if not _rising(stages):
            raise RecipeError(
                f"backbone timm:{name}: stages must be a list of rising numbers from "
                f"0, got {stages!r}"
            )
        if form == "hgad" and len(stages) != 1:
            raise RecipeError(
                f"backbone timm:{name}: form 'hgad' takes exactly one stage, "
                f"got {list(stages)}; give one, or take form 'stages'"
            )
        if pretrained + random + (weights is not None) != 1:
            raise RecipeError(
                f"backbone timm:{name}: give exactly one of pretrained = true, "
                "weights = FILE or random = true (random weights detect next to "
                "nothing and are for tests)"
            )
        self.name = f"timm:{name}"
        self.stages = tuple(stages)
        self.form = form
        self.model, config = _build(
            name,
            self.stages,
            pretrained,
            None if weights is None else Path(weights),
            seed,
        )
        for key in ("mean", "std"):
            values = torch.tensor(config[key], dtype=torch.float32)
            self.register_buffer(key, values.reshape(1, -1, 1, 1))
        self.freeze()

    def describe(self) -> Mapping[str, Any]:
        """Return all that decides the features besides the stored tensors."""
        import timm

        return {
            "kind": self.name,
            "version": self.version,
            "timm": timm.__version__,
            "stages": self.stages,
            "form": self.form,
        }

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, C), finest first, of images (N, 3, S, S)."""
        images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        if self.form == "stages":
            return self._stages(images)
        levels = []
        for scale in (1, 2, 4):
            size = [math.ceil(side / scale) for side in images.shape[2:]]
            levels += self._stages(
                images
                if scale == 1
                else interpolate(images, size, mode="bilinear", antialias=True)
            )
        return levels

    def _stages(self, images: Tensor) -> list[Tensor]:
        try:
            maps = self.model(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = images.shape[2:]
            raise RecipeError(
                f"backbone {self.name} does not take images of {height} x {width} "
                f"pixels ({first_line(error)}); choose the image size it was made for"
            ) from error
        # Some transformers give channels last; the model's own record tells.
        channels_last = "NHWC" in str(getattr(self.model, "output_fmt", "NCHW"))
        return [level if channels_last else level.permute(0, 2, 3, 1) for level in maps]


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


def _rising(stages: object) -> bool:
    """Whether stages are a list of rising numbers from 0, at least one."""
    if not isinstance(stages, (list, tuple)) or not stages:
        return False
    if not all(type(stage) is int and stage >= 0 for stage in stages):
        return False
    return list(stages) == sorted(set(stages))


def first_line(error: BaseException) -> str:
    """Return what an error says, shortened to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _create(
    name: str, seed: int, **options: object
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return a timm model of seeded weights and its pretrained configuration.

    The global random state stays as it was.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not the accelerators' as well
        model = timm.create_model(name, **options)
    return model, model.pretrained_cfg


def _build(
    name: str,
    stages: tuple[int, ...],
    pretrained: bool,
    weights: Path | None,
    seed: int,
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the model that gives the stages, and its pretrained configuration."""
    import timm

    if not timm.is_model(name):
        bare = name.partition(".")[0]
        close = get_close_matches(bare, timm.list_models(), n=3, cutoff=0.5)
        hint = f"closest: {', '.join(close)}" if close else "see timm.list_models()"
        raise RecipeError(f"backbone timm:{name}: timm knows no such model; {hint}")
    options = {"features_only": True, "out_indices": stages}
    try:
        built = _create(name, seed, **options)
    except Exception as error:
        # timm raises assertions, index, runtime and type errors alike.
        raise RecipeError(
            f"backbone timm:{name}: cannot give the stages {list(stages)} "
            f"({first_line(error)}); choose fewer or others"
        ) from error
    if pretrained:
        try:
            built = _create(name, seed, pretrained=True, **options)
        except Exception as error:
            # Hub, proxy, disk and URL failures share no class.
            raise WeightsError(
                f"pretrained weights of timm:{name} could not be fetched "
                f"({first_line(error)}); without a network give a local file: "
                "weights = FILE.safetensors"
            ) from error
    elif weights is not None:
        overlay = {"state_dict": _fitting_state(name, seed, weights)}
        built = _create(
            name, seed, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    return built


def _fitting_state(name: str, seed: int, weights: Path) -> dict[str, Tensor]:
    """Return a file's weights once every layer but the classifier was found in it."""
    state = stored_state(weights)
    model, config = _create(name, seed)
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = model.state_dict()

    def counts(key: str) -> bool:
        return not key.startswith(tuple(f"{head}." for head in heads))

    needed = {key for key in own if counts(key)}
    missing = sorted(
        key
        for key in needed - state.keys()
        # Old files lack the counter of BatchNorm, which decides no feature.
        if not key.endswith("num_batches_tracked")
    )
    if missing:
        raise WeightsError(
            f"weight file {weights} is not of timm:{name}: {len(missing)} of "
            f"{len(needed)} tensors are missing, the first is '{missing[0]}'; "
            "give the file of this model"
        )
    for key in sorted(needed & state.keys()):
        if state[key].shape != own[key].shape:
            raise WeightsError(
                f"weight file {weights} is not of timm:{name}: '{key}' has shape "
                f"{tuple(state[key].shape)}, expected {tuple(own[key].shape)}; "
                "give the file of this model"
            )
    extra = sorted(key for key in state.keys() - own.keys() if counts(key))
    if extra:
        raise WeightsError(
            f"weight file {weights} is not of timm:{name}: it holds {len(extra)} "
            f"tensors the model lacks, the first is '{extra[0]}'; "
            "give the file of this model"
        )
    return {key: state[key] for key in needed & state.keys()}
