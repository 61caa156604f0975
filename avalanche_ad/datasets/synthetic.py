"""The procedural data set: fifteen products drawn from a seed, with exact masks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from avalanche_ad.datasets._synthetic import (
    bench,
    circuit,
    defects,
    drawing,
    metalware,
    objects,
    textures,
)
from avalanche_ad.datasets._synthetic.drawing import Canvas, Draw, Scene, plane
from avalanche_ad.datasets.sample import GOOD, AnomalyData, Sample, Split
from avalanche_ad.errors import DatasetError

__all__ = ["SYNTHETIC_CATEGORIES", "SyntheticAD", "write_mvtec_layout"]

_Painter = Callable[[int, Draw, str, Draw], Scene]


@dataclass(frozen=True)
class _Category:
    """How a category is drawn and what can be wrong with it.

    :param painter: draws one image, with a structural defect if asked.
    :param structural: defects that the painter draws itself.
    :param surface: defects laid over the finished image.
    """

    painter: _Painter
    structural: tuple[str, ...]
    surface: tuple[str, ...]

    @property
    def defects(self) -> tuple[str, ...]:
        return tuple(sorted(self.structural + self.surface))


_CATALOGUE: dict[str, _Category] = {
    "bolt": _Category(metalware.bolt, ("bent", "worn_thread"), ("scratch", "stain")),
    "brush": _Category(
        objects.brush, ("missing_tuft", "splayed_tuft"), ("fibre", "stain")
    ),
    "cable_section": _Category(
        objects.cable_section,
        ("cut_insulation", "missing_strand", "wrong_core"),
        ("debris", "hole"),
    ),
    "capsule_print": _Category(
        objects.capsule_print, ("misprint", "squeezed"), ("crack", "scratch", "stain")
    ),
    "carpet_weave": _Category(
        textures.carpet_weave,
        ("pulled_thread",),
        ("cut_paste", "fibre", "hole", "stain"),
    ),
    "circuit_board": _Category(
        circuit.circuit_board,
        ("broken_trace", "missing_part", "missing_pin", "shifted_part"),
        ("debris",),
    ),
    "flask_top": _Category(
        objects.flask_top, ("chipped_rim",), ("crack", "debris", "stain")
    ),
    "gear": _Category(
        metalware.gear, ("missing_tooth", "worn_tooth"), ("crack", "scratch", "stain")
    ),
    "hazel_shell": _Category(
        objects.hazel_shell, (), ("crack", "cut_paste", "hole", "stain")
    ),
    "hex_nut": _Category(
        metalware.hex_nut,
        ("broken_corner", "stripped_thread"),
        ("colour_shift", "scratch"),
    ),
    "leather_hide": _Category(
        textures.leather_hide, (), ("colour_shift", "dent", "hole", "scratch", "stain")
    ),
    "terrazzo": _Category(textures.terrazzo, (), ("crack", "dent", "hole", "stain")),
    "tile_grid": _Category(
        textures.tile_grid, ("chip",), ("colour_shift", "crack", "smear", "stain")
    ),
    "wood_plank": _Category(
        textures.wood_plank, (), ("cut_paste", "hole", "scratch", "stain")
    ),
    "zip_fastener": _Category(
        objects.zip_fastener, ("bent_tooth", "missing_tooth"), ("fibre", "stain")
    ),
}

SYNTHETIC_CATEGORIES: tuple[str, ...] = tuple(_CATALOGUE)

# A pixel counts as defective where a channel of the finished picture changes by this
# many of 255 steps; less cannot be seen beside the sensor noise.
_VISIBLE = 8
_AREA = (0.003, 0.065)
_ATTEMPTS = 24
_SMALLEST_SIZE = 32


class SyntheticAD:
    """Fifteen products with normal variation, and defects with exact masks.

    Images are drawn when asked for, each from (seed, category, split, defect, number)
    alone: neither the order of access nor the size of the data set changes a pixel.
    A defective image is a normal one, of its own pose and colour, plus the defect; its
    mask is true exactly where the defect may have changed a pixel visibly, and outside
    it the picture equals its sound twin bit by bit.

    The bytes should be the same on every machine with IEEE 754 arithmetic: no library
    function whose last digit may differ is used, and random numbers are PCG64's raw
    bits. Checked on x86-64, with and without its vector instructions; golden digests
    in the tests tell where it would not hold. The size of the image is not part of the
    promise: another size draws the same scene, but may have to move a defect that
    would be too small or too large there.

    :param size: side of the square images in pixels, at least 32.
    :param seed: another seed gives another data set of the same kind.
    :param train_images: normal training images per category.
    :param test_normals: normal test images per category.
    :param test_anomalies: defective test images per category, spread evenly over the
        category's defects.
    :param categories: which categories, in which order; all by default.
    :raises DatasetError: when an argument is out of range or a category is unknown.

    >>> data = SyntheticAD(size=64, categories=["gear"])
    >>> sample = data.samples[0]
    >>> sample.defect_type, data.image(sample).shape
    ('crack', (64, 64, 3))
    """

    def __init__(
        self,
        size: int = 128,
        seed: int = 0,
        train_images: int = 64,
        test_normals: int = 24,
        test_anomalies: int = 30,
        categories: Sequence[str] | None = None,
    ) -> None:
        _check_count("size", size, _SMALLEST_SIZE)
        _check_count("seed", seed, 0)
        _check_count("train_images", train_images, 1)
        _check_count("test_normals", test_normals, 0)
        _check_count("test_anomalies", test_anomalies, 0)
        self.size = int(size)
        self.seed = int(seed)
        self.train_images = int(train_images)
        self.test_normals = int(test_normals)
        self.test_anomalies = int(test_anomalies)
        self._categories = _checked_categories(categories)

    def __repr__(self) -> str:
        return (
            f"SyntheticAD(size={self.size}, seed={self.seed}, "
            f"train_images={self.train_images}, test_normals={self.test_normals}, "
            f"test_anomalies={self.test_anomalies}, categories={self._categories!r})"
        )

    @property
    def name(self) -> str:
        """Return ``"synthetic"``."""
        return "synthetic"

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the categories, alphabetical unless an order was given."""
        return self._categories

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Return all samples, sorted by category, split, defect type and path."""
        found = [
            sample for category in self._categories for sample in self._of(category)
        ]
        return tuple(
            sorted(
                found, key=lambda s: (s.category, s.split, s.defect_type, str(s.path))
            )
        )

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Draw the image, RGB (size, size, 3), values 0-255.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        return _finished(self.size, self.seed, sample)[0].copy()

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Return the mask (size, size) of what the defect changed visibly.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        return _finished(self.size, self.seed, sample)[1].copy()

    def fingerprint(self, sample: Sample) -> str:
        """Return a digest of the drawing code, the parameters and the sample.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        identity = f"{_code_digest()}/{self.size}/{self.seed}/{sample.path.as_posix()}"
        return sha256(identity.encode()).hexdigest()

    def _sound_twin(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Draw the image as it would be without its defect."""
        self._check(sample)
        return _finished(self.size, self.seed, sample)[2].copy()

    def _of(self, category: str) -> list[Sample]:
        kinds = _CATALOGUE[category].defects
        anomalies = [
            (kinds[i % len(kinds)], i // len(kinds)) for i in range(self.test_anomalies)
        ]
        plan: list[tuple[Split, str, int]] = [
            *(("train", GOOD, i) for i in range(self.train_images)),
            *(("test", GOOD, i) for i in range(self.test_normals)),
            *(("test", kind, i) for kind, i in anomalies),
        ]
        return [_sample(category, *entry) for entry in plan]

    @cached_property
    def _known(self) -> frozenset[Sample]:
        return frozenset(self.samples)

    def _check(self, sample: Sample) -> None:
        if sample not in self._known:
            raise DatasetError(
                f"{sample.path}: not an image of this synthetic data set; "
                "expected one of its samples"
            )


def _sample(category: str, split: Split, kind: str, number: int) -> Sample:
    root = Path("synthetic") / category
    mask = None
    if kind != GOOD:
        mask = root / "ground_truth" / kind / f"{number:03d}_mask.png"
    path = root / split / kind / f"{number:03d}.png"
    return Sample(path, category, split, kind, mask)


def _check_count(name: str, value: int, least: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise DatasetError(
            f"synthetic: {name} = {value!r}, "
            f"expected a whole number of at least {least}"
        )


def _checked_categories(categories: Sequence[str] | None) -> tuple[str, ...]:
    if categories is None:
        return SYNTHETIC_CATEGORIES
    known = ", ".join(SYNTHETIC_CATEGORIES)
    if isinstance(categories, str) or not categories:
        raise DatasetError(
            f"synthetic: categories = {categories!r}, "
            f"expected a list with some of: {known}"
        )
    for category in categories:
        if category not in _CATALOGUE:
            raise DatasetError(
                f"synthetic: unknown category {category!r}, expected one of: {known}"
            )
    if len(set(categories)) < len(categories):
        raise DatasetError(
            f"synthetic: categories = {list(categories)!r}, expected each one once"
        )
    return tuple(categories)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Return a digest of the source that decides the pixels."""
    digest = sha256()
    for module in (bench, circuit, defects, drawing, metalware, objects, textures):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


_Rendered = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]


@lru_cache(maxsize=8)
def _finished(size: int, seed: int, sample: Sample) -> _Rendered:
    """Draw a sample: image, mask and the image of the sound twin."""
    key = f"{seed}/{sample.path.as_posix()}"
    category = _CATALOGUE[sample.category]
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
    seen = difference >= _VISIBLE
    # single pixels beside the defect are rounding, single gaps in it coincidence
    reach = max(1, twin.shape[0] // 64)
    grown = ndimage.binary_dilation(seen, iterations=reach)
    closed = ndimage.binary_erosion(grown, iterations=reach, border_value=1)
    mask: npt.NDArray[np.bool_] = closed | seen
    return mask


def write_mvtec_layout(
    data: AnomalyData,
    root: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set to disk in MVTec AD's layout.

    ``CATEGORY/train/good/000.png``, ``CATEGORY/test/DEFECT/000.png`` and
    ``CATEGORY/ground_truth/DEFECT/000_mask.png``. The folder is complete or absent:
    all is written beside it, then renamed.

    :param data: any data set.
    :param root: the folder to make; it may exist if it is empty.
    :param progress: called with (images written, images in all) after every image.
    :return: the folder.
    :raises DatasetError: when the folder holds something or cannot be written.
    """
    target = Path(root)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DatasetError(
                f"{target}: expected a new or empty folder, found something there; "
                "remove it or choose another folder"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f".{target.name}-{token_hex(4)}"
        aside.mkdir()
        try:
            _write_images(data, aside, progress)
            if target.exists():
                target.rmdir()
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise DatasetError(
            f"{target}: cannot write the data set there ({error.strerror or error}); "
            "choose a writable folder with enough space"
        ) from error
    return target


def _write_images(
    data: AnomalyData, root: Path, progress: Callable[[int, int], None] | None
) -> None:
    numbers: dict[Path, int] = {}
    for done, sample in enumerate(data.samples, start=1):
        folder = root / sample.category / sample.split / sample.defect_type
        number = numbers[folder] = numbers.get(folder, -1) + 1
        _save(data.image(sample), folder / f"{number:03d}.png")
        if sample.is_anomaly:
            masks = root / sample.category / "ground_truth" / sample.defect_type
            mask = data.mask(sample).astype(np.uint8) * np.uint8(255)
            _save(mask, masks / f"{number:03d}_mask.png")
        if progress is not None:
            progress(done, len(data.samples))


def _save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
