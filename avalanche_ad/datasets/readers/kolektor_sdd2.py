"""KolektorSDD2: surfaces of one product, with many kinds of defects."""

from __future__ import annotations

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.labelled import pair_labels
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import Sample, Split
from avalanche_ad.datasets.scanning import (
    Scan,
    choose_categories,
    missing_root,
    unknown_folders,
)
from avalanche_ad.errors import counted

__all__ = ["KolektorSDD2Reader"]

_CATEGORY = "surface"
_DEFECT = "defect"
_SPLITS: tuple[Split, ...] = ("train", "test")
_CONTENT = "the folders train and test"


class KolektorSDD2Reader(DiskReader):
    """Read KolektorSDD2: ``{train,test}/10000.png`` beside ``10000_GT.png``.

    An image is anomalous where its label is not all black. The official training images
    are 2085 normal and 246 anomalous ones; the latter are left out, since training uses
    normal images only. The test images are 894 normal and 110 anomalous ones. The one
    category is ``"surface"``, the defect type ``"defect"``.

    Reference: Božič et al., Mixed supervision for surface-defect detection: from weakly
    to fully supervised learning, Computers in Industry 129, 2021. Licence: CC BY-NC-SA
    4.0.

    :param root: the folder that holds ``train`` and ``test``.
    :param categories: a selection of the one category.

    >>> print(next(KolektorSDD2Reader("KSDD2").scan()))
    KSDD2: folder not found; expected the folders train and test
    """

    name = "kolektor_sdd2"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        if problem := missing_root(self.root, _CONTENT):
            yield problem
            return
        chosen = list(choose_categories(self.root, (_CATEGORY,), self.categories))
        yield from (one for one in chosen if isinstance(one, Problem))
        if _CATEGORY in chosen:
            yield from unknown_folders(self.root, _SPLITS, "neither train nor test")
            for split in _SPLITS:
                yield from self._scan_split(split)

    def _scan_split(self, split: Split) -> Scan:
        folder = self.root / split
        normal = left_out = 0
        for found in pair_labels(folder, "_GT", ".png"):
            if isinstance(found, Problem):
                yield found
            elif not found.is_anomaly:
                normal += 1
                yield Sample(found.image, _CATEGORY, split)
            elif split == "test":
                yield Sample(found.image, _CATEGORY, split, _DEFECT, (found.label,))
            else:
                left_out += 1
        if not normal:
            yield Problem(
                folder, f"no normal {split} image; expected 10000.png and 10000_GT.png"
            )
        if left_out:
            images = counted(left_out, "anomalous image")
            reason = f"ignored: training uses only normal images; {images} in it"
            yield Problem(folder, reason, "note", files=left_out)
