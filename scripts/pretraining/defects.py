"""Defects drawn on photographs: a data set to choose a backbone by.

``PYTHONPATH=scripts python -m pretraining.defects PHOTOGRAPHS DIR`` writes it to disk.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from scipy.ndimage import map_coordinates
from torch import Tensor

from avalanche_ad.datasets._synthetic.defects import SURFACE_DEFECTS
from avalanche_ad.datasets._synthetic.drawing import Array, Canvas, Draw
from avalanche_ad.datasets.sample import GOOD, Sample, Split
from avalanche_ad.datasets.writing import write_mvtec_layout
from avalanche_ad.errors import AvalancheADError, DatasetError
from pretraining.photographs import read_photographs

__all__ = ["PhotographDefects"]

# kind: (pixels of the image per pixel of the photograph, share of the photograph that
# a view may move by; 1 shows any part of the mirrored plane)
_KINDS = {"texture": (1.0, 1.0), "coarse": (2.0, 1.0), "object": (2.2, 0.05)}
_VISIBLE = 8
_AREA = (0.002, 0.08)
_ATTEMPTS = 80
_LEAST_CONTRAST = 0.12


class PhotographDefects:
    """One category per photograph: views of it are normal, defects are painted on.

    The photograph is mirrored at its borders without end. A view shows a part of that
    plane: of a *texture* or *coarse* category any part, of an *object* category always
    the same but for a small shift; each with a small turn, its own exposure and sensor
    noise. Every other category is grey, its defects too. Defects are those of the
    procedural data set's surfaces. A view is drawn from (category, split, defect,
    number) alone.

    :param photographs: (N, 3, S, S), uint8: photographs no backbone was trained on.
    :param categories: how many categories; photographs of too little contrast are left
        out.
    :param size: side of the views in pixels.
    :param train_images: normal training views per category.
    :param test_normals: normal test views per category.
    :param test_anomalies: defective test views per category.
    :raises DatasetError: when there are too few photographs.
    """

    name = "photograph_defects"

    def __init__(
        self,
        photographs: Tensor,
        categories: int = 24,
        size: int = 128,
        train_images: int = 40,
        test_normals: int = 20,
        test_anomalies: int = 30,
    ) -> None:
        pixels = photographs.numpy()
        contrast = (pixels / 255.0).mean(1).std((1, 2))
        order = sorted(
            np.flatnonzero(contrast > _LEAST_CONTRAST),
            key=lambda number: sha256(pixels[number].tobytes()).digest(),
        )
        if len(order) < categories:
            raise DatasetError(
                f"{len(order)} photographs of enough contrast, expected {categories} "
                "or more; give more photographs or ask for fewer categories"
            )
        kinds = list(_KINDS)
        self._photographs = {
            f"{kinds[number % len(kinds)]}_{number:02d}": pixels[chosen] / 255.0
            for number, chosen in enumerate(order[:categories])
        }
        self.size = size
        self.counts = (train_images, test_normals, test_anomalies)
        self._draw = lru_cache(maxsize=2)(self._drawn)

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the categories, sorted."""
        return tuple(sorted(self._photographs))

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Return all samples, sorted by category, split, defect type and path."""
        train, normals, anomalies = self.counts
        found = []
        for category in self._photographs:
            defects = sorted(SURFACE_DEFECTS)
            if self._is_grey(category):
                defects.remove("colour_shift")
            plan: list[tuple[Split, str, int]] = [
                ("train", GOOD, number) for number in range(train)
            ]
            plan += [("test", GOOD, number) for number in range(normals)]
            plan += [
                ("test", defects[number % len(defects)], number // len(defects))
                for number in range(anomalies)
            ]
            for split, defect, number in plan:
                path = Path(category) / split / defect / f"{number:03d}.png"
                masks = (path,) if defect != GOOD else ()
                found.append(Sample(path, category, split, defect, masks))
        return tuple(
            sorted(
                found, key=lambda s: (s.category, s.split, s.defect_type, str(s.path))
            )
        )

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Draw the image, RGB (size, size, 3)."""
        return self._draw(sample)[0].copy()

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Draw the mask (size, size) of what the defect changed visibly."""
        return self._draw(sample)[1].copy()

    def fingerprint(self, sample: Sample) -> str:
        """Return a digest of the photograph, the size and the sample."""
        photograph = self._photographs[sample.category].tobytes()
        text = f"{self.name}/3/{self.size}/{sample.path.as_posix()}"
        return sha256(photograph + text.encode()).hexdigest()

    def _drawn(
        self, sample: Sample
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        draw = Draw(self.name, sample.path.as_posix())
        sound = self._view(sample.category, draw)
        noise = 0.012 * draw.bell(3, self.size, self.size)
        if not sample.is_anomaly:
            return _pixels(sound + noise), np.zeros((self.size,) * 2, dtype=np.bool_)
        body = np.ones((self.size, self.size))
        for attempt in range(_ATTEMPTS):
            canvas = Canvas.blank(self.size)
            canvas.rgb[:] = sound
            marks = Draw(self.name, sample.path.as_posix(), attempt)
            strength = marks.uniform(0.4, 0.9) + attempt / _ATTEMPTS
            SURFACE_DEFECTS[sample.defect_type](canvas, body, marks, strength)
            if self._is_grey(sample.category):
                canvas.rgb[:] = canvas.rgb.mean(0)
            difference = np.abs(_pixels(canvas.rgb).astype(int) - _pixels(sound))
            mask = difference.max(2) >= _VISIBLE
            if _AREA[0] <= mask.mean() <= _AREA[1]:
                return _pixels(canvas.rgb + noise), mask
        raise DatasetError(
            f"no {sample.defect_type} of a fitting size could be drawn on "
            f"{sample.path}; take photographs of more contrast"
        )

    @staticmethod
    def _is_grey(category: str) -> bool:
        return int(category.rpartition("_")[2]) % 2 == 1

    def _view(self, category: str, draw: Draw) -> Array:
        """Return a view (3, size, size) of a category's photograph."""
        scale, freedom = _KINDS[category.partition("_")[0]]
        photograph = self._photographs[category]
        if self._is_grey(category):
            photograph = np.repeat(photograph.mean(0, keepdims=True), 3, axis=0)
        side = photograph.shape[-1]
        turn = np.deg2rad(draw.uniform(-3.0, 3.0))
        middle = [side / 2 + freedom * side * draw.uniform(-1.0, 1.0) for _ in range(2)]
        axis = (np.arange(self.size) - (self.size - 1) / 2) / scale
        x, y = np.meshgrid(axis, axis)
        rows = middle[0] + x * np.sin(turn) + y * np.cos(turn)
        columns = middle[1] + x * np.cos(turn) - y * np.sin(turn)
        view = np.stack(
            [
                map_coordinates(plane, [rows, columns], order=3, mode="reflect")
                for plane in photograph
            ]
        )
        exposed: Array = np.clip(view, 0, 1) * draw.uniform(0.92, 1.08)
        return 0.06 + 0.88 * exposed


def _pixels(rgb: Array) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3), 0-255, of (3, H, W), 0-1."""
    scaled = np.clip(rgb * 255.0 + 0.5, 0, 255).astype(np.uint8)
    pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(scaled.transpose(1, 2, 0))
    return pixels


def main(
    photographs: Annotated[Path, typer.Argument(help="tar archive or folder")],
    out: Annotated[Path, typer.Argument(help="folder to write")],
    categories: Annotated[int, typer.Option(min=1)] = 24,
) -> None:
    """Write the data set in MVTec layout, from the photographs held out."""
    try:
        found = read_photographs(photographs)
        data = PhotographDefects(found.select(held_out=True)[0], categories)
        write_mvtec_layout(data, out)
    except AvalancheADError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
