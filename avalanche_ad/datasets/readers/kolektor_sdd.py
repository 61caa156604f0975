"""KolektorSDD: the surfaces of 50 electrical commutators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.labelled import pair_labels
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.datasets.scanning import (
    Scan,
    choose_categories,
    find_folders,
    ignored,
    missing_root,
    stray_images,
)

__all__ = ["KolektorSDDReader"]

_CATEGORY = "commutator"
_DEFECT = "crack"
_ITEM = re.compile(r"kos(\d+)")
_TEST_EVERY = 5
_CONTENT = "one folder per item: kos01 to kos50"


class KolektorSDDReader(DiskReader):
    """Read KolektorSDD: ``kos01/Part0.jpg`` beside ``kos01/Part0_label.bmp``.

    An image is anomalous where its label is not all black: 52 of 399, about 500 x 1250
    grey pixels each. There is no official split for learning from normal images alone.
    Here it goes by the item: of every fifth one (kos05, kos10, … kos50) the normal
    images are for testing, of all others for training; every anomalous image is for
    testing. The one category is ``"commutator"``, the defect type ``"crack"``.

    Reference: Tabernik et al., Segmentation-based deep-learning approach for
    surface-defect detection, Journal of Intelligent Manufacturing 31, 2020. Licence: CC
    BY-NC-SA 4.0.

    :param root: the folder that holds the folders of the items.
    :param categories: a selection of the one category.

    >>> print(next(KolektorSDDReader("KolektorSDD").scan()))
    KolektorSDD: folder not found; expected one folder per item: kos01 to kos50
    """

    name = "kolektor_sdd"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        if problem := missing_root(self.root, _CONTENT):
            yield problem
            return
        items = [path for path in find_folders(self.root) if _ITEM.fullmatch(path.name)]
        if not items:
            yield Problem(self.root, f"no item found; expected {_CONTENT}")
            return
        chosen = list(choose_categories(self.root, (_CATEGORY,), self.categories))
        yield from (one for one in chosen if isinstance(one, Problem))
        if _CATEGORY not in chosen:
            return
        yield from stray_images(self.root)
        splits = set()
        for folder in find_folders(self.root):
            if folder not in items:
                yield ignored(folder, f"no item; expected {_CONTENT}")
                continue
            for found in _scan_item(folder):
                yield found
                if isinstance(found, Sample):
                    splits.add(found.split)
        for split in sorted({"train", "test"} - splits):
            yield Problem(
                self.root, f"no {split} image of the {len(items)} items; unpack all 50"
            )


def _scan_item(folder: Path) -> Iterator[Sample | Problem]:
    number = int(folder.name.removeprefix("kos"))
    for found in pair_labels(folder, "_label", ".bmp"):
        if isinstance(found, Problem):
            yield found
        elif found.is_anomaly:
            yield Sample(found.image, _CATEGORY, "test", _DEFECT, (found.label,))
        elif number % _TEST_EVERY:
            yield Sample(found.image, _CATEGORY, "train")
        else:
            yield Sample(found.image, _CATEGORY, "test")
