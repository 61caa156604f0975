"""What the images and masks of a data set are, in a digest for each category."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from avalanche_ad.datasets.loading import file_digest
from avalanche_ad.datasets.sample import AnomalyData, Sample

__all__ = ["category_digests"]


def category_digests(
    data: AnomalyData,
    categories: Collection[str] | None = None,
    fingerprints: Mapping[Sample, str] | None = None,
) -> dict[str, str]:
    """Return a hexadecimal digest of what each category holds.

    It covers the content of every image and mask with its split and its defect type,
    in the reader's order, and no path: a data set that is moved or copied keeps its
    digests. A mask that is drawn, whose path names it and is no file, is decided by
    what decides its image, see :meth:`AnomalyData.fingerprint`.

    :param data: the data set.
    :param categories: of which categories, all by default.
    :param fingerprints: of the samples, where they are known: they are not read again.
    :raises DatasetError: when a file cannot be read.
    """
    known = fingerprints or {}
    names = data.categories if categories is None else categories
    digests = {name: hashlib.blake2b(digest_size=16) for name in names}
    for sample in data.samples:
        if sample.category not in digests:
            continue
        image = known.get(sample) or data.fingerprint(sample)
        entry = [sample.split, sample.defect_type, image, _mask(data, sample)]
        digests[sample.category].update(json.dumps(entry).encode())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _mask(data: AnomalyData, sample: Sample) -> str | None:
    """Return a digest of an image's mask, None where there is nothing to add."""
    if sample.mask_paths:
        digests = [file_digest(path) for path in sample.mask_paths if path.is_file()]
        return "+".join(digests) or None
    if not sample.is_anomaly:
        return None
    pixels = data.mask(sample)
    if pixels is None:
        return None
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
