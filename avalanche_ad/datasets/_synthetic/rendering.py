"""From a sample to its picture: the scene, its defect, light and sensor noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from avalanche_ad.datasets._synthetic import defects
from avalanche_ad.datasets._synthetic.catalogue import CATALOGUE
from avalanche_ad.datasets._synthetic.drawing import Canvas, Draw, plane
from avalanche_ad.datasets.sample import GOOD, Sample

__all__ = ["DRAWING", "VISIBLE", "rendered"]

DRAWING = "8af6d9858143e78ce89555db4ff7b9537e85ee17b75ed4d9b55bbb5fd0ef0241"
"""Stands for the pixels that this code draws; to be changed when they change, which the
golden digests in the tests tell: cached features and results go by it."""

# A pixel counts as defective where a channel of the finished picture changes by this
# many of 255 steps; less cannot be seen beside the sensor noise.
VISIBLE = 8
_AREA = (0.003, 0.065)
_ATTEMPTS = 24

Rendered = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]


@lru_cache(maxsize=8)
def rendered(size: int, seed: int, sample: Sample) -> Rendered:
    """Draw a sample: image, mask and the image of its sound twin.

    :param size: side of the images in pixels.
    :param seed: the data set's.
    :return: (size, size, 3) values 0-255, (size, size), (size, size, 3).
    """
    key = f"{seed}/{sample.path.as_posix()}"
    category = CATALOGUE[sample.category]
    sound, body = category.painter(size, Draw(key, "scene"), GOOD, Draw(key, GOOD))
    twin = _develop(sound, key)
    nothing = np.zeros((size, size), dtype=bool)
    if not sample.is_anomaly:
        return twin, nothing, twin
    kind = sample.defect_type
    picture, mask = twin, nothing
    # a defect may fall where it does not show, or spread too far: draw another one
    for attempt in range(_ATTEMPTS):
        harm = Draw(key, "defect", attempt)
        if kind in category.structural:
            hurt, _ = category.painter(size, Draw(key, "scene"), kind, harm)
        else:
            hurt = sound.copy()
            strength = 1.0 + attempt / _ATTEMPTS
            defects.SURFACE_DEFECTS[kind](hurt, body, harm, strength)
        changed = _develop(hurt, key)
        mask = _visible(twin, changed)
        picture = np.where(mask[..., None], changed, twin)
        if _AREA[0] <= np.count_nonzero(mask) / mask.size <= _AREA[1]:
            break
    return picture, mask, twin


def _develop(canvas: Canvas, key: str) -> npt.NDArray[np.uint8]:
    """Light the scene, add the sensor's noise and quantise."""
    draw = Draw(key, "camera")
    gain = draw.uniform(0.85, 1.14)
    warmth = draw.uniform(-0.05, 0.05)
    tilt = draw.uniform(-0.09, 0.09) * canvas.x + draw.uniform(-0.09, 0.09) * canvas.y
    balance = plane((1.0 + warmth, 1.0, 1.0 - warmth))
    lit = canvas.rgb * (gain * (1.0 + tilt) * balance)
    level = draw.uniform(2.4, 3.2)
    noisy = 255.0 * lit + level * draw.bell(*canvas.rgb.shape)
    values = np.clip(np.floor(noisy + 0.5), 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def _visible(
    twin: npt.NDArray[np.uint8], changed: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Return where two pictures differ visibly, small gaps closed."""
    difference = np.abs(twin.astype(np.int16) - changed.astype(np.int16)).max(axis=2)
    seen = difference >= VISIBLE
    # single pixels beside the defect are rounding, single gaps in it coincidence
    reach = max(1, twin.shape[0] // 64)
    grown = ndimage.binary_dilation(seen, iterations=reach)
    closed = ndimage.binary_erosion(grown, iterations=reach, border_value=1)
    mask: npt.NDArray[np.bool_] = closed | seen
    return mask
