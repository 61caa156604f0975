"""Predict with a saved run: scores, verdicts and heat maps for any images."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from avalanche_ad.datasets.loading import (
    IMAGE_SUFFIXES,
    image_remarks,
    load_image,
    resize_image,
)
from avalanche_ad.datasets.scanning import is_system_file
from avalanche_ad.errors import (
    DatasetError,
    RecipeError,
    ResultsError,
    counted,
    writing,
)
from avalanche_ad.experiments.provenance import features_id
from avalanche_ad.experiments.results import read_results
from avalanche_ad.features import make_backbone
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.storage import load_model
from avalanche_ad.models.thresholds import FalseAlarms, HeldOutScores
from avalanche_ad.reporting.figures import is_heat_map, save_heat_map

__all__ = ["Threshold", "find_images", "predict_images"]

_LARGEST_SHOWN = 2048  # pixels of a heat map's longer side
_MASKS = "ground_truth"  # of a data set: masks are no parts
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Threshold:
    """Which score calls an image anomalous: one of the fields, or the run's quantile.

    :param level: share of new normals that shall lie below, of each category.
    :param score: one score for all categories.
    :param f1max: the score of largest F1 on the test split, of each category.

    >>> Threshold.parse("0.99")
    Threshold(level=0.99, score=None, f1max=False)
    >>> Threshold.parse("score:0.5")
    Threshold(level=None, score=0.5, f1max=False)
    """

    level: float | None = None
    score: float | None = None
    f1max: bool = False

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read what ``--threshold`` takes.

        :param text: ``quantile``; ``f1max``; a number between 0 and 1, a level; any
            other number, a score, which ``score:`` before it makes it in any case.
        :raises RecipeError: for anything else.
        """
        if text in ("quantile", "f1max"):
            return cls(f1max=text == "f1max")
        kind, _, number = text.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if kind not in ("", "score") or not math.isfinite(value):
            raise RecipeError(
                "--threshold: expected quantile, f1max, a quantile of normals between "
                f"0 and 1 as 0.99, or a score as 12.3 or score:0.5, got {text!r}"
            )
        if not kind and 0 < value < 1:
            return cls(level=value)
        return cls(score=value)


class _Judge:
    """The thresholds of a saved run, and what is known of normals' scores.

    :param run: the run's folder.
    :param description: what its ``model.json`` holds.
    :param threshold: which of them to take.
    :param warn: whether to tell of thresholds that are missing or worth little.
    """

    def __init__(
        self,
        run: Path,
        description: Mapping[str, Any],
        threshold: Threshold,
        warn: bool = True,
    ) -> None:
        honest = {
            *description.get("fresh", ()),
            *(
                name
                for name, held_out in description.get("density_held_out", {}).items()
                if held_out
            ),
        }
        names = list(description["categories"])
        kept = {
            kind: dict(description["thresholds"][kind])
            for kind in ("f1max", "quantile")
        }
        self.held_out = {
            name: HeldOutScores(scores)
            for name, scores in dict(description.get("held_out", {})).items()
        }
        self.trained_on = {name: name not in honest for name in names}
        self.level: float | None = None
        if threshold.score is not None:
            self.limits = dict.fromkeys(names, threshold.score)
        elif threshold.f1max:
            self.limits = kept["f1max"]
            none = [name for name in names if self.limits.get(name) is None]
            if none and warn:
                _log.warning(
                    "%s has no f1max threshold for %s, whose test split had no defects "
                    "or was not there: no verdict",
                    run,
                    ", ".join(none),
                )
        elif "held_out" in description:
            self.level = threshold.level or float(description["quantile"])
            self.limits = {
                name: scores.threshold(self.level)
                for name, scores in self.held_out.items()
            }
            missing = [name for name in names if name not in self.limits]
            if missing and warn:
                _log.warning(
                    "%s has no threshold for %s: no scores of held-out "
                    "normals compare with those it gives now; `avalanche-ad calibrate "
                    "%s NEW_NORMALS` takes one from new ones",
                    run,
                    ", ".join(missing),
                    run,
                )
            seen = [name for name in self.limits if self.trained_on[name]]
            if seen and warn:
                _log.warning(
                    "the thresholds of %s are of images that its flow was trained on "
                    "(%s), and more of other normals pass them: `avalanche-ad "
                    "calibrate %s NEW_NORMALS` takes them from new ones",
                    run,
                    ", ".join(seen),
                    run,
                )
        elif threshold.level is None:
            _log.warning(
                "%s was made by an earlier version: its threshold is a quantile of the "
                "training normals' own scores, which more of other normals pass; run "
                "the experiment again for one that they do not",
                run,
            )
            self.limits = kept["quantile"]
        else:
            raise ResultsError(
                f"{run} was made by an earlier version and keeps no scores of held-out "
                f"normals to take the quantile {threshold.level:g} of: take "
                "--threshold quantile or f1max, or run the experiment again"
            )

    def verdict(self, category: str, score: float) -> dict[str, Any]:
        """Return threshold and verdict, and what is known of normals' scores."""
        limit, held_out = self.limits.get(category), self.held_out.get(category)
        found: dict[str, Any] = {
            "threshold": limit,
            "anomalous": None if limit is None else score >= limit,
        }
        if held_out is not None:
            found["normals_above"] = round(held_out.share_above(score), 6)
            if limit is not None:
                alarms = _rounded(held_out.false_alarms(limit, self.level))
                trained_on = self.trained_on[category]
                found["false_alarms"] = {**alarms, "trained_on": trained_on}
        return found


def _rounded(alarms: FalseAlarms) -> dict[str, float]:
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in asdict(alarms).items()
    }


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return image files: those given, and all images below the folders given.

    Hidden and system files in folders are passed over, and heat maps of
    :func:`predict_images` wherever they are; a line is logged of how many. An image
    given twice is taken once. What has an image's name in a folder and is none, such as
    a link to nothing, is returned as well, for its reader to refuse.

    :raises DatasetError: when a path does not exist or a folder holds no image.
    """
    found: dict[Path, Path] = {}
    maps = 0
    for path in paths:
        inside = [path]
        try:
            kind = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            kind = 0
        except OSError as error:
            reason = error.strerror or error
            raise DatasetError(f"{path}: cannot be read: {reason}") from None
        if stat.S_ISDIR(kind):
            inside = _below(path)
            if not inside:
                raise DatasetError(f"{path}: no image in this folder or below it")
        elif not stat.S_ISREG(kind):
            raise DatasetError(f"{path}: no such image or folder")
        for item in inside:
            if is_heat_map(item):
                maps += 1
            else:
                # one place has many names: a/../a, or a link to a folder
                folder = Path(os.path.realpath(item.parent))
                found.setdefault(folder / item.name, item)
    if maps:
        _log.warning(
            "%d heat map%s that predict wrote %s passed over",
            maps,
            *(("", "is") if maps == 1 else ("s", "are")),
        )
    if not found:
        raise DatasetError(
            f"{paths[0] if paths else 'nothing given'}: no image but heat maps that "
            "predict wrote: give images"
        )
    return list(found.values())


def _below(folder: Path) -> list[Path]:
    """Return what has an image's name below a folder, and folders that do not open."""
    found, masks = [], list[Path]()

    def refused(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, folders, files in os.walk(folder, onerror=refused):
        masks += [Path(place, name) for name in folders if name == _MASKS]
        folders[:] = [
            name
            for name in folders
            if name != _MASKS and not is_system_file(Path(place, name), folder)
        ]
        found += [
            item
            for item in (Path(place, name) for name in files)
            if item.suffix.lower() in IMAGE_SUFFIXES
            and not is_system_file(item, folder)
        ]
        if Path(place).suffix.lower() in IMAGE_SUFFIXES and not (folders or files):
            found.append(Path(place))  # an empty folder of an image's name
    if masks:
        _log.warning(
            "%s of masks passed over (such as %s)",
            counted(len(masks), "folder"),
            masks[0],
        )
    return sorted(found)


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
    :param threshold: which threshold gives the verdict, see :meth:`Threshold.parse`.
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
        judge = _Judge(run, description, threshold, warn)
    except ResultsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
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
            verdict = judge.verdict(names[category], score)
            line |= {"score": score, "category": names[category], **verdict}
            if heat_maps is not None:
                target = heat_maps / _map_name(path)
                low, high = _range(verdict["threshold"], score_map)
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
