"""MVTec LOCO AD: five categories, with logical and structural anomalies."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.loading import Remark, load_image
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.regions import Region
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout
from avalanche_ad.errors import DatasetError

__all__ = ["MVTEC_LOCO_CATEGORIES", "LOCOData", "MVTecLOCOReader", "saturation_of"]

MVTEC_LOCO_CATEGORIES = (
    "breakfast_box",
    "juice_bottle",
    "pushpins",
    "screw_bag",
    "splicing_connectors",
)

_CONFIG = "defects_config.json"


class _Defect(BaseModel):
    pixel_value: Annotated[int, Field(ge=1, le=255)]
    saturation_threshold: Annotated[float, Field(gt=0)]
    relative_saturation: bool


_DEFECTS = TypeAdapter(list[_Defect])


def saturation_of(area: int, threshold: float, *, relative: bool) -> float:
    """Return the share of a defect's pixels that saturates it.

    The publisher's rule, in pixels: a relative threshold times the area, rounded down;
    an absolute one, but no more than the area. At least one pixel is taken.

    :param area: the defect's pixels.
    :param threshold: ``saturation_threshold`` of ``defects_config.json``.
    :param relative: its ``relative_saturation``.

    >>> saturation_of(200, 0.5, relative=True), saturation_of(200, 50, relative=False)
    (0.5, 0.25)
    """
    pixels = int(min(threshold * area if relative else threshold, area))
    return max(pixels, 1) / area


@lru_cache(maxsize=16)
def _defects(path: Path) -> dict[int, _Defect]:
    """Return what a category's ``defects_config.json`` says by pixel value."""
    try:
        entries = _DEFECTS.validate_python(json.loads(path.read_text("utf-8")))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read: {reason}; it comes with the data set and says "
            "when a defect counts as found"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(
            f"{path}: at {where or 'the top'}: {first['msg']}; unpack the file anew"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON: {error}; unpack it anew") from error
    return {entry.pixel_value: entry for entry in entries}


class LOCOData(DiskData):
    """MVTec LOCO AD on disk, which knows the regions of its defects.

    >>> LOCOData("mvtec_loco", ()).regions(Sample(Path("0.png"), "pushpins", "test"))
    []
    """

    def regions(self, sample: Sample) -> list[Region]:
        """Return the defects of an image, one for each of its masks, (H, W).

        :raises DatasetError: when a mask or ``defects_config.json`` cannot be read, or
            they do not fit each other.
        """
        return [_region(sample, path) for path in sample.mask_paths]

    def read_mask(
        self, sample: Sample
    ) -> tuple[npt.NDArray[np.bool_] | None, list[Remark]]:
        """Return the union of the regions, and what is odd about their files.

        :raises DatasetError: as :meth:`regions`.
        """
        self.regions(sample)  # what is wrong with them is told before a run needs them
        return super().read_mask(sample)


def _region(sample: Sample, path: Path) -> Region:
    values = load_image(path)[..., 0]
    found = np.unique(values[values > 0])
    defects = _defects(sample.path.parents[2] / _CONFIG)
    if len(found) != 1 or int(found[0]) not in defects:
        shown = ", ".join(str(value) for value in found[:8]) or "none"
        raise DatasetError(
            f"{path}: expected one value besides 0, of {_CONFIG}, found {shown}"
        )
    mask = values > 0
    defect = defects[int(found[0])]
    share = saturation_of(
        int(mask.sum()),
        defect.saturation_threshold,
        relative=defect.relative_saturation,
    )
    return Region(mask, share, sample.defect_type)


class MVTecLOCOReader(DiskReader):
    """Read MVTec LOCO AD: ``<category>/{train/good,test/<type>,ground_truth/<type>}``.

    The types are ``"logical_anomalies"``, such as a part that is missing, and
    ``"structural_anomalies"``, such as a dent. An image has a mask for each of its
    defects: ``ground_truth/<type>/000/{000,001,…}.png`` are those of
    ``test/<type>/000.png``, and their union is its mask. The grey value of a mask is
    looked up in ``<category>/defects_config.json``, which says how many of a defect's
    pixels must be found: what the metric ``spro`` goes by. ``validation``, whose images
    are normal and belong to neither split, is not read.

    Reference: Bergmann et al., Beyond Dents and Scratches: Logical Constraints in
    Unsupervised Anomaly Detection and Localization, IJCV 130, 2022. Licence: CC
    BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all five otherwise. The order stays alphabetical.

    >>> print(next(MVTecLOCOReader("LOCO").scan()))
    LOCO: folder not found; expected one folder per category: breakfast_box, juice...
    """

    name = "mvtec_loco"
    data = LOCOData
    layout = Layout(mask_folders=True, unused=("validation",))

    def scan(self) -> Scan:
        """Yield samples and problems."""
        categories = set()
        known = MVTEC_LOCO_CATEGORIES
        for found in scan_official(self.root, known, self.categories, self.layout):
            if isinstance(found, Sample) and found.category not in categories:
                categories.add(found.category)
                yield from self._check_config(found.category)
            yield found

    def _check_config(self, category: str) -> Scan:
        path = self.root / category / _CONFIG
        _defects.cache_clear()  # it may have been mended since
        try:
            _defects(path)
        except DatasetError as error:
            yield Problem(path, str(error).removeprefix(f"{path}: "))
