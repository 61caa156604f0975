"""Features on disk: computed once per image, then read by every later run.

An entry is a folder named by the digest of all that decides its content. It holds
``features.npy``, row i the features of sample i, and ``manifest.json``. It is
written aside and renamed, so it is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from platformdirs import user_cache_path

from avalanche_ad.datasets.loading import LOADING_RULES
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.errors import CacheError
from avalanche_ad.features.backbone import Backbone, first_line
from avalanche_ad.features.cached import CachedFeatures, checksum
from avalanche_ad.features.extraction import Progress, feature_batches
from avalanche_ad.features.layout import FeatureLayout

__all__ = ["FeatureCache"]

Precision = Literal["float16", "float32"]

_VARIABLE = "AVALANCHE_AD_CACHE"
_MEND = f"give another folder with --cache DIR or {_VARIABLE}"
_ARRAY = "features.npy"
_MANIFEST = "manifest.json"
_FORMAT = 1
# Enough for the file system's own records, so that a full disk is told beforehand.
_SPARE_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """What one entry of the cache holds.

    :param key: its folder's name.
    :param backbone: name of the backbone.
    :param dataset: name of the data set.
    :param images: how many images.
    :param bytes: size on disk.
    :param created: seconds since the epoch.
    :param used: when it was last read, seconds since the epoch.
    """

    key: str
    backbone: str
    dataset: str
    images: int
    bytes: int
    created: float
    used: float


class FeatureCache:
    """Compute features once and keep them on disk.

    :param root: the folder; by default the environment variable
        ``AVALANCHE_AD_CACHE`` or else the user's cache folder.

    >>> FeatureCache("features_of_mine").entries()
    []
    """

    def __init__(self, root: Path | str | None = None) -> None:
        chosen = root or os.environ.get(_VARIABLE) or user_cache_path("avalanche_ad")
        self.root = Path(chosen).expanduser()

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.root)!r})"

    def features(
        self,
        backbone: Backbone,
        data: AnomalyData,
        samples: Sequence[Sample],
        image_size: int,
        *,
        dtype: Precision = "float16",
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        progress: Progress | None = None,
        fingerprints: Sequence[str] | None = None,
    ) -> CachedFeatures:
        """Return the features of samples, computing them if no run has before.

        The entry is keyed by the backbone's fingerprint, the image size, the type of
        number and the content of every image, in order. Memory needed does not grow
        with the number of samples.

        :param backbone: the frozen backbone; not called when the entry exists.
        :param data: where the images come from.
        :param samples: which images, in the order of the rows.
        :param image_size: images are resized to this side, in pixels.
        :param dtype: ``"float16"`` halves the space, at about 1e-3 relative error.
        :param device: where the backbone computes; it is left there.
        :param batch_size: images per call of the backbone.
        :param progress: called with (images done, images in all).
        :param fingerprints: what ``data`` gives as those of the samples, where they are
            known: then no image is read when the entry exists.
        :raises CacheError: when the folder cannot be written, the disk is full or a
            feature is not finite in ``dtype``.
        """
        if dtype not in ("float16", "float32"):
            raise CacheError(f"features are kept as float16 or float32, not {dtype!r}")
        if fingerprints is None:
            fingerprints = [data.fingerprint(sample) for sample in samples]
        source = {
            "format": _FORMAT,
            "loading": LOADING_RULES,
            "backbone": backbone.fingerprint(),
            "image_size": image_size,
            "dtype": dtype,
            "images": list(fingerprints),
        }
        key = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:32]
        folder = self.root / key
        found = self._open(folder, report=False)
        if found is not None:
            return found
        with self._writing(key) as aside:
            # Another process may have built the entry while this one waited.
            found = self._open(folder, report=True)
            if found is not None:
                return found
            _remove(folder)
            layout = backbone.layout(image_size)
            self._check_space(len(samples) * layout.size * np.dtype(dtype).itemsize)
            batches = feature_batches(
                backbone, data, samples, image_size, dtype, device, batch_size, progress
            )
            _write_array(aside, batches, (len(samples), layout.size), np.dtype(dtype))
            manifest = {
                "format": _FORMAT,
                "backbone": backbone.name,
                "dataset": data.name,
                "images": len(samples),
                "image_size": image_size,
                "dtype": dtype,
                "levels": layout.levels,
                "checksum": checksum(aside / _ARRAY),
                "created": time.time(),
            }
            with _telling(self.root):
                _write_synced(aside / _MANIFEST, json.dumps(manifest).encode())
                aside.rename(folder)
        return CachedFeatures(folder / _ARRAY, layout, hit=False)

    def entries(self) -> list[CacheEntry]:
        """Return all complete entries, the last used first."""
        entries = []
        for path in self.root.glob(f"*/{_MANIFEST}"):
            try:
                manifest = json.loads(path.read_bytes())
                entry = CacheEntry(
                    key=path.parent.name,
                    backbone=str(manifest["backbone"]),
                    dataset=str(manifest["dataset"]),
                    images=int(manifest["images"]),
                    bytes=_folder_bytes(path.parent),
                    created=float(manifest["created"]),
                    used=path.stat().st_mtime,
                )
            except (OSError, ValueError, KeyError, TypeError):
                # Damaged, or removed meanwhile: `features` rebuilds it when needed.
                continue
            if path.parent.suffix != ".partial":
                entries.append(entry)
        return sorted(entries, key=lambda entry: (-entry.used, entry.key))

    def size(self) -> int:
        """Return the bytes that the cache takes on disk."""
        return sum(_folder_bytes(folder) for folder in self._folders())

    def clear(
        self, keys: Sequence[str] | None = None, *, unused_days: float = 0.0
    ) -> int:
        """Delete entries, damaged ones and remains of interrupted runs.

        :param keys: which entries; by default all.
        :param unused_days: keep what was read within so many days.
        :return: freed bytes.
        :raises CacheError: for a key that the cache lacks, or when a file cannot be
            deleted.
        """
        folders = self._folders()
        unknown = sorted(set(keys or ()) - {folder.name for folder in folders})
        if unknown:
            raise CacheError(
                f"the cache {self.root} has no entry {unknown[0]}; "
                "`avalanche-ad cache` lists what it has"
            )
        limit = time.time() - unused_days * 86400
        freed = 0
        for folder in folders:
            if keys is not None and folder.name not in keys:
                continue
            if unused_days and _last_used(folder) > limit:
                continue
            with self._lock(folder.stem):
                freed += _folder_bytes(folder)
                _remove(folder)
        return freed

    def _folders(self) -> list[Path]:
        """Return the folders of entries, finished or not."""
        if not self.root.is_dir():
            return []
        return sorted(
            path
            for path in self.root.iterdir()
            if path.is_dir() and len(path.stem) == 32 and not path.is_symlink()
        )

    def _open(self, folder: Path, *, report: bool) -> CachedFeatures | None:
        """Return an entry if it exists and is whole."""
        if not folder.is_dir():
            return None
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            levels = tuple((int(h), int(w), int(c)) for h, w, c in manifest["levels"])
            features = CachedFeatures(folder / _ARRAY, FeatureLayout(levels), hit=True)
            expected = (int(manifest["images"]), features.layout.size)
            if features.array.shape != expected:
                raise ValueError(f"shape {features.array.shape} instead of {expected}")
            if checksum(folder / _ARRAY) != manifest["checksum"]:
                raise ValueError("its checksum is another")
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            if report:
                _log.warning(
                    "cached features %s are damaged (%s); computing them again",
                    folder,
                    first_line(error),
                )
            return None
        try:
            os.utime(folder / _MANIFEST)
        except OSError:
            _log.debug("cannot note the use of %s", folder)
        return features

    def _lock(self, key: str) -> FileLock:
        with _telling(self.root):
            locks = self.root / "locks"
            locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / key)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """Hold the entry's lock and give an empty folder to write it in.

        Whatever ends the block early, an interrupt included, leaves no part behind.
        """
        aside = self.root / f"{key}.partial"
        lock = self._lock(key)
        with _telling(self.root):
            lock.acquire()
        try:
            with _telling(self.root):
                _remove(aside)
                aside.mkdir()
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            lock.release()

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < needed + _SPARE_BYTES:
            raise CacheError(
                f"the feature cache {self.root} has {_readable(free)} left, "
                f"{_readable(needed)} needed; {_MEND}, or free space with "
                "`avalanche-ad cache clear`"
            )


@contextmanager
def _telling(root: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line that says how to mend it."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"the feature cache {root} cannot be written "
            f"({error.strerror or error}); {_MEND}"
        ) from error


def _write_array(
    folder: Path,
    batches: Iterator[npt.NDArray[np.floating[Any]]],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> None:
    """Write rows as one ``.npy`` file, batch by batch.

    Plain writes and no map: on a full disk a write raises, a map kills the process.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with _telling(folder.parent):
        file = (folder / _ARRAY).open("wb", buffering=0)
    with file:
        with _telling(folder.parent):
            np.lib.format.write_array_header_1_0(file, header)
        # Reading an image may fail too, but not as an error of the cache.
        for batch in batches:
            with _telling(folder.parent):
                rest = np.ascontiguousarray(batch).data.cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
        with _telling(folder.parent):
            os.fsync(file.fileno())


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _readable(size: int) -> str:
    """Return a number of bytes in the unit that shows its size."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size / 1e3:.2f} kB"


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _last_used(folder: Path) -> float:
    manifest = folder / _MANIFEST
    return (manifest if manifest.is_file() else folder).stat().st_mtime


def _remove(folder: Path) -> None:
    """Delete a folder if it is there."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be deleted ({error.strerror or error}); delete it by hand"
        ) from error
