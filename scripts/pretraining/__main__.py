"""``PYTHONPATH=scripts python -m pretraining PHOTOGRAPHS --out DIR``."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.device import pick_device
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.features.backbones.embedded import Columns
from avalanche_ad.features.residual_trunk import ResidualArchitecture
from avalanche_ad.features.weights.adopt import command, numbers
from avalanche_ad.features.weights.export import (
    WEIGHTS,
    check_levels,
    export,
    write_card,
)
from pretraining.network import folded_trunk
from pretraining.photographs import Photographs, read_photographs
from pretraining.training import MEAN, STD, Settings, autocast_dtype, train

_DEFAULT = Settings()
_COLUMNS = Columns()


def main(
    photographs: Annotated[
        Path, typer.Argument(help="tar archive or folder, a folder per class in it")
    ],
    out: Annotated[Path, typer.Option(help="where checkpoint, curves and weights go")],
    epochs: Annotated[int, typer.Option(min=1)] = _DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(min=2)] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(min=1e-8)] = _DEFAULT.lr,
    channels: Annotated[str, typer.Option(help="of each stage")] = ",".join(
        map(str, _DEFAULT.architecture.channels)
    ),
    blocks: Annotated[
        str | None, typer.Option(help="of each stage; 1 and then 2 by default")
    ] = None,
    contrast: Annotated[
        float, typer.Option(min=0, help="weight of telling two views from all others")
    ] = _DEFAULT.contrast,
    labels: Annotated[
        bool,
        typer.Option("--labels/--no-labels", help="whether classes teach the network"),
    ] = _DEFAULT.labels,
    colour: Annotated[
        float, typer.Option(min=0, max=1, help="strength of the changes of colour")
    ] = _DEFAULT.colour,
    size: Annotated[int, typer.Option(min=16, help="pixels")] = _DEFAULT.size,
    first_size: Annotated[
        int, typer.Option(min=16, help="of the views in the first epoch")
    ] = _DEFAULT.first_size,
    strides: Annotated[
        str, typer.Option(help="pixels per position of each feature level")
    ] = "8",
    stack: Annotated[
        str, typer.Option(help="strides of the stages stacked at a position")
    ] = ",".join(map(str, _COLUMNS.stages)),
    filters: Annotated[
        bool, typer.Option(help="stack the filter bank's channels too")
    ] = _COLUMNS.filters,
    level_channels: Annotated[
        int, typer.Option(min=0, help="principal components kept of it; 0: all")
    ] = _COLUMNS.channels,
    source: Annotated[
        str, typer.Option(help="name and licence of the photographs, for the card")
    ] = "",
    seed: Annotated[int, typer.Option(min=0)] = _DEFAULT.seed,
    device: str = "auto",
    precision: Annotated[str, typer.Option(help="auto, bfloat16 or float32")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's choice by default")
    ] = None,
) -> None:
    """Train a residual network for the backbone `embedded`; write its file and card.

    Run again with the same options to go on after an interruption. The result is the
    same bit by bit for the same options, photographs, threads and machine (with
    --contrast on a CPU only).
    """
    console = Console(stderr=True)
    try:
        widths = numbers("--channels", channels)
        depths = (1, *(2,) * (len(widths) - 1))
        if blocks is not None:
            depths = numbers("--blocks", blocks)
        if len(widths) != len(depths):
            raise AvalancheADError(
                f"--blocks {blocks!r}: expected a number for each of the {len(widths)} "
                "stages of --channels"
            )
        settings = Settings(
            architecture=ResidualArchitecture(widths[0], widths, depths),
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            contrast=contrast,
            labels=labels,
            colour=colour,
            size=size,
            first_size=min(first_size, size),
            seed=seed,
        )
        place = pick_device(device, threads)
        levels = numbers("--strides", strides)
        columns = Columns(
            numbers("--stack", stack), filters=filters, channels=level_channels
        )
        check_levels(settings.architecture, columns, levels)
        dtype = autocast_dtype(precision, place)
        with RunProgress(console) as bar:
            found = read_photographs(
                photographs, size, lambda *done: bar.report("photographs", *done)
            )
            model, rows = train(
                found,
                settings,
                out,
                device=place,
                dtype=dtype,
                progress=lambda *done: bar.report("training", *done),
            )
        card = _card(found, settings, rows, source, place, dtype)
        path = out / WEIGHTS
        chosen, _ = found.select(held_out=False)
        export(
            folded_trunk(model.cpu()),
            chosen,
            path,
            mean=MEAN,
            std=STD,
            columns=columns,
            strides=levels,
            card=card,
        )
        write_card(path, card)
        training_curves(rows).savefig(out / "curves.png", dpi=120)
    except AvalancheADError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    validated = ""
    if found.held_out.any():
        right = 100 * rows[-1]["validation_accuracy"]
        validated = f", {right:.1f} % of the photographs held out are right"
    console.print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB{validated}\n"
        f"Take it with --set features.options.weights={path}",
        soft_wrap=True,
    )


def training_curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw loss and accuracy of training and validation over epochs.

    :param rows: one per epoch: ``epoch``, ``loss``, ``train_accuracy``,
        ``validation_loss`` and ``validation_accuracy``.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    pairs = {
        "loss": ("loss", "validation_loss"),
        "accuracy": ("train_accuracy", "validation_accuracy"),
    }
    for axes, (title, keys) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
        for key, label in zip(keys, ("training", "held out"), strict=True):
            axes.plot(epochs, [row[key] for row in rows], marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _card(
    photographs: Photographs,
    settings: Settings,
    rows: list[dict[str, float]],
    source: str,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Return what is known about the weights."""
    machine = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads of "
        f"{torch.cpu.get_capabilities().get('cpu_name', platform.machine())}"
    )
    return {
        "photographs": {
            "source": source,
            "trained_on": int((~photographs.held_out).sum()),
            "held_out": int(photographs.held_out.sum()),
            "classes": len(photographs.classes),
        },
        "command": command("pretraining"),
        "settings": asdict(settings),
        "machine": machine,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "date": time.strftime("%Y-%m-%d"),
        "validation": {
            name: round(rows[-1][f"validation_{name}"], 4)
            for name in ("accuracy", "loss")
            if photographs.held_out.any()
        },
    }


if __name__ == "__main__":
    typer.run(main)
