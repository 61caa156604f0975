"""Take a network of timm over as the embedded backbone's weight file.

``python -m avalanche_ad.features.weights.adopt MODEL --weights FILE --out OUT`` does.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
import typer
from rich.console import Console
from timm.layers import Conv2dSame
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from avalanche_ad.errors import (
    AvalancheADError,
    RecipeError,
    WeightsError,
    writing,
)
from avalanche_ad.features.backbone import first_line, stored_state
from avalanche_ad.features.backbones.embedded import Columns
from avalanche_ad.features.inverted_trunk import (
    Block,
    InvertedArchitecture,
    InvertedTrunk,
)
from avalanche_ad.features.weights.export import (
    WEIGHTS,
    check_levels,
    export,
    fold,
    write_card,
)
from avalanche_ad.features.whitening import drawn_images

__all__ = ["command", "folded_trunk", "load_tensors", "numbers"]

_COLUMNS = Columns(stages=(4, 8, 16))


def main(
    model: Annotated[str, typer.Argument(help="timm's name of the network")],
    weights: Annotated[
        Path, typer.Option(help="its weights, safetensors or a PyTorch state dict")
    ],
    out: Annotated[Path, typer.Option(help="folder of the weight file and its card")],
    source: Annotated[
        str, typer.Option(help="where the weights come from, and their licence")
    ] = "not said",
    stack: Annotated[
        str, typer.Option(help="strides of the stages that a level stacks")
    ] = "4,8,16",
    strides: Annotated[str, typer.Option(help="of the levels")] = "8",
    window: Annotated[int, typer.Option(help="positions averaged, odd")] = (
        _COLUMNS.window
    ),
    level_channels: Annotated[
        int, typer.Option(min=0, help="of a level, 0 for all that are stacked")
    ] = _COLUMNS.channels,
) -> None:
    """Write a network of timm as a weight file of the backbone ``embedded``.

    Of inverted residual blocks with ReLU6: EfficientNet-Lite, MobileNetV2. Its batch
    normalisation is folded, what is behind the last stage stacked is left out, and the
    stack's components are those of drawn images of nothing in particular. The same
    weights give the same tensors.
    """
    console = Console(stderr=True)
    try:
        if window < 1 or window % 2 == 0:
            raise RecipeError(f"--window {window}: expected an odd number")
        columns = Columns(numbers("--stack", stack), window, channels=level_channels)
        levels = numbers("--strides", strides)
        network = _created(model)
        architecture, _ = _sizes_and_filters(network, model)
        check_levels(architecture, columns, levels)
        load_tensors(network, stored_state(weights), weights)
        card: dict[str, Any] = {
            "model": model,
            "source": source,
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "command": command("avalanche_ad.features.weights.adopt"),
            "timm": timm.__version__,
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        path = out / WEIGHTS
        with writing(out, "weights"):
            out.mkdir(parents=True, exist_ok=True)
            export(
                folded_trunk(network, model),
                drawn_images(),
                path,
                mean=network.pretrained_cfg["mean"],
                std=network.pretrained_cfg["std"],
                columns=columns,
                strides=levels,
                card=card,
            )
            write_card(path, card)
    except AvalancheADError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    console.print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB\n"
        f"Take it with --set features.options.weights={path}",
        soft_wrap=True,
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers of an option, given with commas.

    :raises RecipeError: when it is something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise RecipeError(
            f"{option} {text!r}: expected whole numbers with commas, as 32,64"
        )
    return found


def command(module: str) -> str:
    """Return the command line as a card tells it.

    Paths are shortened to their names: a card says what, not where.

    :param module: what follows ``python -m``.
    """
    arguments = [
        Path(argument).name if "/" in argument and Path(argument).exists() else argument
        for argument in sys.argv[1:]
    ]
    return f"python -m {module} {shlex.join(arguments)}"


def _created(model: str) -> Any:
    """Return a network of timm in evaluation.

    :raises RecipeError: when timm knows no such model or tag.
    """
    try:
        if timm.is_model(model):
            return timm.create_model(model).eval()
        reason = "no such model"
    except RuntimeError as error:  # of a tag that the model does not have
        reason = first_line(error)
    raise RecipeError(f"timm knows no '{model}' ({reason}); see timm.list_models()")


def load_tensors(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Give a network stored tensors by their names, or else by their order.

    Other ports of one network name its tensors differently but keep their order.

    :param network: it takes the tensors.
    :param state: tensors by name.
    :param path: where they were read, for the message.
    :raises WeightsError: when they are not of this network.
    """
    counters = "num_batches_tracked"
    given = {key: value for key, value in state.items() if counters not in key}
    own = {k: v for k, v in network.state_dict().items() if counters not in k}
    if len(given) == len(own) and given.keys() != own.keys():
        given = dict(zip(own, given.values(), strict=True))
    wrong = [key for key in own if key in given and given[key].shape != own[key].shape]
    if wrong or given.keys() != own.keys():
        found = (
            f"'{wrong[0]}' is of shape {tuple(given[wrong[0]].shape)}, expected "
            f"{tuple(own[wrong[0]].shape)}"
            if wrong
            else f"it holds {len(given)}, expected {len(own)}"
        )
        raise WeightsError(
            f"weight file {path} does not hold the tensors of this network, by name or "
            f"in order: {found}; give the weights of the model named"
        )
    network.load_state_dict(given, strict=False)


def folded_trunk(network: nn.Module, name: str) -> InvertedTrunk:
    """Return a network for inference, its batch normalisation folded into filters.

    :param network: one of timm in evaluation, of inverted residual blocks.
    :param name: of the model, for the message.
    :raises RecipeError: when it is of other parts.
    """
    architecture, pairs = _sizes_and_filters(network, name)
    trunk = architecture.trunk()
    filters = [part for part in trunk.modules() if isinstance(part, nn.Conv2d)]
    for target, pair in zip(filters, pairs, strict=True):
        fold(target, *pair)
    return trunk.eval()


def _sizes_and_filters(
    network: Any,
    name: str,
) -> tuple[InvertedArchitecture, list[tuple[Any, Any]]]:
    """Return the sizes, and every filter with its normalisation, in order.

    :raises RecipeError: when the network is of other parts.
    """
    try:
        stem = network.conv_stem
        pairs: list[tuple[Any, Any]] = [(stem, network.bn1)]
        stages: list[list[Block]] = [[]]
        plain = stem.kernel_size == (3, 3) and _clipped(network.bn1)
        for block in (block for stage in network.blocks for block in stage):
            sizes, own, stride = _parts(block)
            if stride == 2:
                stages.append([])
            stages[-1].append(sizes)
            pairs += own
            plain &= stride in (1, 2)
    except (AttributeError, TypeError):
        plain = False
    if not plain or not stages[0]:
        raise RecipeError(
            f"{name} is not of inverted residual blocks with ReLU6 alone, as "
            "tf_efficientnet_lite0 and mobilenetv2_100 are; take backbone "
            f"'timm:{name}' and its weights as they are"
        )
    blocks, same = tuple(map(tuple, stages)), isinstance(stem, Conv2dSame)
    return InvertedArchitecture(stem.out_channels, blocks, same), pairs


def _parts(block: Any) -> tuple[Block, list[tuple[Any, Any]], int]:
    """Return sizes, filters with their normalisation, and stride of a block of timm.

    :raises TypeError: when it has other parts.
    """
    if isinstance(block, DepthwiseSeparableConv):
        pairs = [(block.conv_dw, block.bn1), (block.conv_pw, block.bn2)]
    elif type(block) is InvertedResidual:
        pairs = [
            (block.conv_pw, block.bn1),
            (block.conv_dw, block.bn2),
            (block.conv_pwl, block.bn3),
        ]
    else:
        raise TypeError(type(block).__name__)
    depthwise, project = pairs[-2][0], pairs[-1][0]
    has_skip = depthwise.stride == (1, 1) and pairs[0][0].in_channels == (
        project.out_channels
    )
    if (
        not all(_clipped(norm) for _, norm in pairs[:-1])
        or not isinstance(pairs[-1][1].act, nn.Identity)
        or not isinstance(block.se, nn.Identity)
        or block.has_skip != has_skip
        or depthwise.groups != depthwise.in_channels
        or (len(pairs) == 3) != (depthwise.in_channels != pairs[0][0].in_channels)
    ):
        raise TypeError("other parts")
    sizes = Block(
        depthwise.kernel_size[0], depthwise.out_channels, project.out_channels
    )
    return sizes, pairs, depthwise.stride[0]


def _clipped(norm: Any) -> bool:
    return isinstance(norm.act, nn.ReLU6)


if __name__ == "__main__":
    typer.run(main)
