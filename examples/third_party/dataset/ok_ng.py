"""A data set of another package: ``<category>/{learn, ok, ng, ng_mask}/*.png``."""

from __future__ import annotations

from avalanche_ad.datasets import DiskReader, Problem, Sample
from avalanche_ad.datasets.scanning import Scan, choose_categories


class OkNgReader(DiskReader):
    """Read parts to learn from, good and defective parts to test on, and masks.

    The mask of ``ng/7.png`` is ``ng_mask/7.png``.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all otherwise.
    :param ending: of the image files.
    """

    name = "ok_ng"

    def __init__(self, root=None, categories=None, *, ending: str = "png") -> None:
        super().__init__(root, categories)
        self.ending = ending

    def scan(self) -> Scan:
        """Yield samples and problems."""
        known = sorted(path.parent.name for path in self.root.glob("*/learn"))
        if not known:
            yield Problem(self.root, "no category found; expected <category>/learn")
        for category in choose_categories(self.root, known, self.categories):
            if isinstance(category, Problem):
                yield category
                continue
            folder = self.root / category
            for path in sorted(folder.glob(f"learn/*.{self.ending}")):
                yield Sample(path, category, "train")
            for path in sorted(folder.glob(f"ok/*.{self.ending}")):
                yield Sample(path, category, "test")
            for path in sorted(folder.glob(f"ng/*.{self.ending}")):
                mask = folder / "ng_mask" / f"{path.stem}.png"
                yield Sample(path, category, "test", "ng", (mask,))
