"""Predict with a saved run: scores, decisions and heat maps for any images."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from avalanche_ad.datasets.loading import (
    image_remarks,
    load_image,
    resize_image,
)
from avalanche_ad.errors import (
    DatasetError,
    RecipeError,
    ResultsError,
    writing,
)
from avalanche_ad.experiments.decisions import DecisionThresholds, Threshold
from avalanche_ad.experiments.provenance import features_id
from avalanche_ad.experiments.results import read_results
from avalanche_ad.features import make_backbone
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.storage import load_model, with_way
from avalanche_ad.reporting.figures import save_heat_map

__all__ = ["predict_images"]

_LARGEST_SHOWN = 2048  # pixels of a heat map's longer side
_log = logging.getLogger(__name__)


def predict_images(
    run: Path,
    images: Sequence[Path],
    *,
    heat_maps: Path | None = None,
    threshold: str | Threshold = "quantile",
    device: torch.device | None = None,
    batch_size: int = 16,
    warn: bool = True,
) -> Iterator[dict[str, Any]]:
    """Score images with a saved run, one mapping per image in their order.

    Each has ``image`` and, where the image cannot be read, ``error`` alone; else
    ``note``, where the file is dark, turned or has pages that are not read, ``score``,
    ``category`` (inferred), ``threshold``, ``anomalous`` (the score reaches the
    threshold) and, where heat maps are written, ``heat_map``, or ``error`` where it
    cannot be. The scores of the
    category's normals that were held out of the fit, see
    :meth:`~avalanche_ad.models.anomaly_model.AnomalyModel.held_out_scores`, give

    - the ``quantile`` threshold, which a share of 0.95 of new normals shall lie below;
    - ``normals_above``, the expected share of new normals that score as high or
      higher, in (0, 1];
    - ``false_alarms``, the share of new normals that reach the threshold: ``expected``,
      the ends ``low`` and ``high`` of its 95 % interval, and of how many ``images``;
      with ``trained_on`` a flow was trained on those very images by gradient, as under
      replay, and new normals reach the threshold more often than that, by far where a
      few images were trained on for long
      (:func:`~avalanche_ad.experiments.fresh_normals.calibrate_run` mends that).

    ``f1max`` is the threshold of largest F1 on the test split, so it has seen test
    labels. Of a heat map the name follows from the image's path, so that one image's
    is written anew and no other's is; images of more than 2048 pixels a side are shown
    smaller.

    :param run: folder of a finished run.
    :param images: image files.
    :param heat_maps: folder for one PNG an image, none by default.
    :param threshold: which threshold decides, see :meth:`Threshold.parse`.
    :param device: where to compute.
    :param batch_size: images at once.
    :param warn: whether to tell of thresholds that are missing or worth little.
    :raises AvalancheADError: when the run cannot be read, a threshold is not known or
        the folder for heat maps cannot be made.
    """
    if isinstance(threshold, str):
        threshold = Threshold.parse(threshold)
    model, description = load_model(run)
    try:
        made, options = (
            description["backbone"][key] for key in ("backbone", "options")
        )
        size, mask = int(description["image_size"]), int(description["mask_size"])
        names = list(description["categories"])
        thresholds = DecisionThresholds(run, description, threshold, warn)
    except ResultsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(
            f"{run}: model.json is damaged or not one of this version "
            f"({type(error).__name__}: {error}); run the experiment again"
        ) from None
    try:
        model.score_of()  # which may be another package's, as the backbone
        backbone = make_backbone(made, **options)
    except RecipeError as error:
        raise ResultsError(f"{run}: {with_way(error)}") from error
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
        read = [_read(path, size) for path in paths]
        scored = _scored(
            model, [pair.scored for pair in read if not isinstance(pair, str)]
        )
        for path, pair in zip(paths, read, strict=True):
            line: dict[str, Any] = {"image": str(path)}
            if isinstance(pair, str):
                yield {**line, "error": pair}
                continue
            if pair.note:
                line["note"] = pair.note
            score, category, score_map = next(scored)
            if not math.isfinite(score):
                yield {**line, "error": "its score is not finite"}
                continue
            decision = thresholds.decide(names[category], score)
            line |= {"score": score, "category": names[category], **decision}
            if heat_maps is not None:
                target = heat_maps / _map_name(path)
                low, high = _range(decision["threshold"], score_map)
                try:
                    save_heat_map(target, pair.shown, score_map, low, high)
                    line["heat_map"] = str(target)
                except OSError as error:  # the score is worth having without it
                    reason = error.strerror or error
                    line["error"] = f"{target}: cannot write the heat map ({reason})"
            yield line


class _Read(NamedTuple):
    """An image to show, one to score, and what of the file can spoil its score."""

    shown: npt.NDArray[np.uint8]
    scored: npt.NDArray[np.uint8]
    note: str


def _read(path: Path, size: int) -> _Read | str:
    """Return an image, or in a few words why there is none."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            os.scandir(path).close()
        if not stat.S_ISREG(kind):  # a pipe would be waited for
            return f"{path}: not a file"
        image = load_image(path)
        told = "; ".join(str(one) for one in image_remarks(path) if one.telling)
        return _Read(_shown(image), resize_image(image, size), told)
    except FileNotFoundError:
        return f"{path}: file not found"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}"
    except DatasetError as error:
        return " ".join(str(error).split())
    except MemoryError:
        return f"{path}: too large for the memory there is; cut or resize it first"


def _range(
    limit: float | None, score_map: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Return the scores that a heat map's colours go from and to."""
    lowest, highest = float(score_map.min()), float(score_map.max())
    if limit is not None and limit <= 0:  # no share of it says anything
        return lowest, highest
    top = highest if limit is None else limit
    return 0.6 * top, 1.4 * top


def _shown(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    longest = max(image.shape[:2])
    if longest <= _LARGEST_SHOWN:
        return image
    height, width = (
        max(1, side * _LARGEST_SHOWN // longest) for side in image.shape[:2]
    )
    return np.array(Image.fromarray(image).resize((width, height)))


def _scored(
    model: AnomalyModel, images: Sequence[npt.NDArray[np.uint8]]
) -> Iterator[tuple[float, int, npt.NDArray[np.float32]]]:
    """Yield score, category and score map of each image of a batch."""
    if not images:
        return
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    scores = model.predict(batch.to(model.device), len(images))
    yield from zip(
        scores.image.tolist(),
        scores.category.tolist(),
        scores.maps.cpu().numpy(),
        strict=True,
    )


def _map_name(path: Path) -> str:
    """Return a name that no other image's heat map has, and this one's always."""
    place = os.fsencode(path.resolve())
    # file systems count bytes, and a character cut in two is none
    stem = os.fsencode(path.stem)[:60].decode(errors="ignore")
    return f"{stem}_{hashlib.blake2b(place, digest_size=6).hexdigest()}.png"
