"""Predict with a saved run: scores, verdicts and heat maps for any images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from avalanche_ad.datasets.loading import IMAGE_SUFFIXES, load_image, resize_image
from avalanche_ad.errors import DatasetError, ResultsError, writing
from avalanche_ad.experiments.provenance import features_id
from avalanche_ad.experiments.results import read_results
from avalanche_ad.features import make_backbone
from avalanche_ad.models.storage import load_model
from avalanche_ad.reporting.figures import save_heat_map

__all__ = ["find_images", "predict_images"]

ThresholdKind = Literal["f1max", "quantile"]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return image files: those given, and all images below the folders given.

    :raises DatasetError: when a path does not exist or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                item
                for item in path.rglob("*")
                if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file()
            )
            if not inside:
                raise DatasetError(f"{path}: no image in this folder or below it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DatasetError(f"{path}: no such image or folder")
    return found


def predict_images(
    run: Path,
    images: Sequence[Path],
    *,
    heat_maps: Path | None = None,
    threshold: ThresholdKind = "quantile",
    device: torch.device | None = None,
    batch_size: int = 16,
) -> Iterator[dict[str, Any]]:
    """Score images with a saved run, one mapping per image in their order.

    Each has ``image``, ``score``, ``category`` (inferred), ``threshold``, ``anomalous``
    and, where heat maps are written, ``heat_map``. The ``quantile`` threshold is the
    0.95 quantile of the category's training normals, taken when it was learned;
    ``f1max`` is the one of largest F1 on the test split, so it has seen test labels.

    :param run: folder of a finished run.
    :param images: image files.
    :param heat_maps: folder for one PNG an image, none by default.
    :param threshold: which threshold gives the verdict.
    :param device: where to compute.
    :param batch_size: images at once.
    :raises AvalancheADError: when the run or an image cannot be read.
    """
    model, description = load_model(run)
    try:
        made, options = (
            description["backbone"][key] for key in ("backbone", "options")
        )
        size, mask = int(description["image_size"]), int(description["mask_size"])
        names = list(description["categories"])
        thresholds = dict(description["thresholds"][threshold])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{run}: model.json is damaged or not one of this version "
            f"({type(error).__name__}: {error}); run the experiment again"
        ) from None
    backbone = make_backbone(made, **options)
    features, now = None, features_id(backbone)
    if (run / "results.json").is_file():  # or a model kept without its results
        features = read_results(run)["versions"].get("features")
    if features not in (None, now):
        raise ResultsError(
            f"{run} was trained on other features of backbone {made} than it gives now "
            f"({features}, not {now}): its weights changed; "
            "run the experiment again, or predict with the version that made it"
        )
    device = device or torch.device("cpu")
    model.to(device).attach_backbone(backbone, size, mask)
    if heat_maps is not None:
        with writing(heat_maps, "heat maps"):
            heat_maps.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(images), batch_size):
        paths = images[start : start + batch_size]
        pixels = [load_image(path) for path in paths]
        batch = torch.stack(
            [torch.from_numpy(resize_image(image, size)) for image in pixels]
        )
        scores = model.predict(batch.permute(0, 3, 1, 2).to(device), batch_size)
        for row, path in enumerate(paths):
            category = names[int(scores.category[row])]
            limit = thresholds.get(category)
            score = float(scores.image[row])
            line: dict[str, Any] = {
                "image": str(path),
                "score": score,
                "category": category,
                "threshold": limit,
                "anomalous": None if limit is None else score >= limit,
            }
            if heat_maps is not None:
                target = heat_maps / f"{start + row:04d}_{path.stem}.png"
                top = limit if limit is not None else float(scores.maps[row].max())
                save_heat_map(
                    target,
                    pixels[row],
                    scores.maps[row].cpu().numpy(),
                    low=0.6 * top,
                    high=1.4 * top,
                )
                line["heat_map"] = str(target)
            yield line
