"""``avalanche-ad predict``: scores and heat maps of images."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from avalanche_ad.cli.options import Device

_BROKEN_PIPE = 141  # as a shell reports of a process that the signal ended


def predict(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the heat maps [RUN/predictions]."),
    ] = None,
    heat_maps: Annotated[
        bool, typer.Option("--heat-maps/--no-heat-maps", help="Write PNGs.")
    ] = True,
    threshold: Annotated[
        str,
        typer.Option(
            help="quantile (0.95 of new normals below), f1max (on the test split), "
            "another quantile as 0.99, or a score as 12.3 or score:0.5."
        ),
    ] = "quantile",
    device: Device = "auto",
) -> None:
    """Score images: a JSON line an image, and heat maps over the images.

    An image that cannot be read has a line that says so; the exit code is then 1.
    """
    from avalanche_ad.experiments.decisions import Threshold
    from avalanche_ad.experiments.image_files import find_images
    from avalanche_ad.experiments.prediction import predict_images

    chosen = Threshold.parse(threshold)
    files = find_images(images)
    from avalanche_ad.experiments.device import pick_device

    folder = (out or run_folder / "predictions") if heat_maps else None
    failed = False
    for line in predict_images(
        run_folder,
        files,
        heat_maps=folder,
        threshold=chosen,
        device=pick_device(device),
    ):
        failed = failed or "error" in line
        try:
            typer.echo(json.dumps(line))
        except BrokenPipeError:
            # whoever reads has had enough; nothing is to be flushed at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from None
    if failed:
        raise typer.Exit(1)
