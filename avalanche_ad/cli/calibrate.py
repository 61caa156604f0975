"""``avalanche-ad calibrate``: thresholds from normal images never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from avalanche_ad.cli.options import Device
from avalanche_ad.cli.output import print_table, say_error


def calibrate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="New normal images of any of its categories, or folders."),
    ],
    device: Device = "auto",
) -> None:
    """Take the thresholds of a run anew, from normal images it has never seen."""
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.fresh_normals import calibrate_run
    from avalanche_ad.experiments.image_files import find_images

    files = find_images(images)
    rows, unread = calibrate_run(run_folder, files, device=pick_device(device))
    table = Table(box=None, pad_edge=False)
    for heading in ("category", "images", "above before", "threshold", "false alarms"):
        table.add_column(heading, justify="left" if heading == "category" else "right")
    for row in rows:
        alarms, above = row.alarms, row.above_before
        table.add_row(
            row.category,
            str(alarms.images),
            "–" if above is None else f"{above:.0%}",
            f"{row.after:.4g}" if row.taken else "as before",
            f"{alarms.expected:.1%} [{alarms.low:.1%}, {alarms.high:.1%}]"
            if row.taken
            else "too few images",
        )
    print_table(table)
    for line in unread:
        say_error(line)
    if unread:
        raise typer.Exit(1)
