"""Any convolutional network or transformer of the timm library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features.backbone import Backbone, first_line, stored_state

__all__ = ["TimmBackbone"]

_SCALES = (1, 2, 4)


class TimmBackbone(Backbone):
    """Take the feature levels of a timm model.

    A network whose stages have strides of their own (ResNet, ConvNeXt, Swin) gives by
    default stages 1, 2 and 3, for a residual network strides 4, 8 and 16. A plain
    transformer (ViT, DeiT, DINOv2), whose every block is a stage of the patch's stride,
    gives by default the blocks that end the first, second and third quarter of its
    depth: of 12 blocks 2, 5 and 8, counted from 0. Its class and register tokens are
    left out. It takes any image whose side is a multiple of the patch, its position
    embedding resampled; Swin does so too, by the side of its smallest patch.

    :param name: the model's timm name, for example ``"wide_resnet50_2"``.
    :param stages: which of the model's stages become levels, counted from 0; the
        default is above, in form ``"hgad"`` its middle one.
    :param form: ``"stages"``: one level per stage. ``"hgad"``: one stage of the image
        at scales 1, 1/2 and 1/4, so that all levels are of equal width (Yao et al.,
        HGAD, ECCV 2024).
    :param pretrained: whether timm fetches its pretrained weights.
    :param weights: a local file with the model's weights instead, safetensors or a
        PyTorch state dict; never executed as code.
    :param random: take random weights on purpose, drawn from ``seed``. Of use in tests
        only: a random network detects defects poorly.
    :param seed: seed of the random weights.
    :raises RecipeError: for an unknown model or stage, or when none or several of
        ``pretrained``, ``weights`` and ``random`` are asked for.
    :raises WeightsError: when the weights cannot be had or do not fit.

    >>> TimmBackbone("test_vit", random=True).layout(64)
    FeatureLayout(levels=((4, 4, 64), (4, 4, 64), (4, 4, 64)))
    """

    version = 1
    name = "timm:<model>"

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
        self.check(
            name,
            stages=stages,
            form=form,
            pretrained=pretrained,
            weights=weights,
            random=random,
        )
        file = None if weights is None else Path(weights)
        chosen = None if stages is None else tuple(stages)
        self.name = f"timm:{name}"
        self.form = form
        self.model, config, self.stages = _build(
            name, form, chosen, pretrained, file, seed
        )
        for key in ("mean", "std"):
            values = torch.tensor(config[key], dtype=torch.float32)
            self.register_buffer(key, values.reshape(1, -1, 1, 1))
        self.freeze()

    @classmethod
    def check(
        cls,
        name: str,
        *,
        stages: Sequence[int] | None = None,
        form: str = "stages",
        pretrained: bool = False,
        weights: str | Path | None = None,
        random: bool = False,
        seed: int = 0,
    ) -> None:
        """Refuse what timm does not know, and options of wrong values.

        No model is built, no weights are read. The parameters are the constructor's.

        :raises RecipeError: naming the first that is wrong.
        """
        where = f"backbone timm:{name}:"
        if form not in ("stages", "hgad"):
            raise RecipeError(
                f"{where} unknown form '{form}'; expected 'stages' or 'hgad'"
            )
        if stages is not None and not _rising(stages):
            raise RecipeError(
                f"{where} stages must be a list of rising numbers from 0, "
                f"got {stages!r}"
            )
        if stages is not None and form == "hgad" and len(stages) != 1:
            raise RecipeError(
                f"{where} form 'hgad' takes exactly one stage, got {list(stages)}; "
                "give one, or take form 'stages'"
            )
        if pretrained + random + (weights is not None) != 1:
            raise RecipeError(
                f"{where} give exactly one of pretrained = true, weights = FILE or "
                "random = true (random weights detect next to nothing and are for "
                "tests)"
            )
        _check_known(name)

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
        """Return the levels (N, H, W, C), finest first, of images (N, 3, S, S).

        :raises RecipeError: when the model does not take images of this size.
        """
        height, width = images.shape[2:]
        scales = _SCALES if self.form == "hgad" else (1,)
        if patch := self._patch():
            step = patch * scales[-1]
            if height % step or width % step:
                near = max(1, round(height / step)) * step
                raise RecipeError(
                    f"backbone {self.name} cuts images into patches of {patch} pixels, "
                    f"for which {height} x {width} do not do; take an image size that "
                    f"is a multiple of {step}, such as {near}"
                )
        images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        levels = []
        for scale in scales:
            size = [math.ceil(side / scale) for side in (height, width)]
            levels += self._stages(
                images
                if scale == 1
                else interpolate(images, size, mode="bilinear", antialias=True)
            )
        return levels

    def _patch(self) -> int:
        """Return the side of the patches of a model that takes images of any number."""
        from timm.layers import PatchEmbed

        for module in self.model.modules():
            if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
                return 0 if module.strict_img_size else int(module.patch_size[0])
        return 0

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


def _rising(stages: object) -> bool:
    """Whether stages are a list of rising numbers from 0, at least one."""
    if not isinstance(stages, (list, tuple)) or not stages:
        return False
    if not all(type(stage) is int and stage >= 0 for stage in stages):
        return False
    return list(stages) == sorted(set(stages))


def _check_known(name: str) -> None:
    """Refuse a name that is no model of timm's."""
    import timm
    from timm.models import get_pretrained_cfg

    bare = name.partition(".")[0]
    if not timm.is_model(name):
        close = get_close_matches(bare, timm.list_models(), n=3, cutoff=0.5)
        hint = f"closest: {', '.join(close)}" if close else "see timm.list_models()"
        raise RecipeError(f"backbone timm:{name}: timm knows no such model; {hint}")
    try:
        get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        known = [one for one in timm.list_pretrained(f"{bare}.*")]
        raise RecipeError(
            f"backbone timm:{name}: {first_line(error)}; "
            f"expected {' or '.join([bare, *known])}"
        ) from None


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
    form: str,
    stages: tuple[int, ...] | None,
    pretrained: bool,
    weights: Path | None,
    seed: int,
) -> tuple[nn.Module, Mapping[str, Any], tuple[int, ...]]:
    """Return the model that gives the stages, its pretrained configuration, the stages.

    :param stages: None for the default ones.
    """
    chosen = stages or ((1, 2, 3) if form == "stages" else (2,))
    built, options = _created(name, seed, chosen)
    if stages is None and (better := _quarters(built[0], form)):
        chosen = better
        built, options = _created(name, seed, chosen)
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
    return *built, chosen


def _created(
    name: str, seed: int, stages: tuple[int, ...]
) -> tuple[tuple[nn.Module, Mapping[str, Any]], dict[str, Any]]:
    """Return a model that gives stages of images of any size if it can, and how.

    :return: what :func:`_create` returns, and its options.
    """
    options: dict[str, Any] = {"features_only": True, "out_indices": stages}
    try:
        try:
            resized = {**options, "dynamic_img_size": True}
            return _create(name, seed, **resized), resized
        except TypeError:  # most networks have no such option
            return _create(name, seed, **options), options
    except Exception as error:
        # timm raises assertions, index, runtime and type errors alike.
        raise RecipeError(
            f"backbone timm:{name}: cannot give the stages {list(stages)} "
            f"({first_line(error)}); choose fewer or others"
        ) from error


def _quarters(model: Any, form: str) -> tuple[int, ...] | None:
    """Return the blocks that end the quarters of a plain transformer's depth.

    :return: the middle one alone in form ``"hgad"``; None for a model of few stages or
        whose stages differ in stride.
    """
    stages = model.feature_info.info
    if len(stages) < 4 or len({stage["reduction"] for stage in stages}) > 1:
        return None
    ends = tuple(len(stages) * quarter // 4 - 1 for quarter in (1, 2, 3))
    return ends if form == "stages" else ends[1:2]


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
