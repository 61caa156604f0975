"""What categories have to be tested on, and what lacks for some of their metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.sample import Sample

__all__ = ["TestCounts", "lacking", "lacking_problems"]


@dataclass(frozen=True)
class TestCounts:
    """How many test images a category has.

    :param category: its name.
    :param folder: the folder that all of its images are in.
    :param normals: how many are normal.
    :param anomalies: how many are anomalous.
    :param unmasked: how many of these have no known mask.

    >>> cut = Sample(Path("cable/test/cut/0.png"), "cable", "test", "cut")
    >>> (one,) = TestCounts.count([cut], unmasked=[cut])
    >>> one.anomalies, one.unmasked
    (1, 1)
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    category: str
    folder: Path
    normals: int
    anomalies: int
    unmasked: int

    @classmethod
    def count(
        cls, samples: Iterable[Sample], unmasked: Collection[Sample]
    ) -> list[TestCounts]:
        """Count by category, in order.

        :param samples: of all splits.
        :param unmasked: the anomalous ones without a known mask.
        """
        own: dict[str, list[Sample]] = {}
        for sample in samples:
            own.setdefault(sample.category, []).append(sample)
        without = set(unmasked)
        found = []
        for category, members in own.items():
            tested = [sample for sample in members if sample.split == "test"]
            anomalies = [sample for sample in tested if sample.is_anomaly]
            found.append(
                cls(
                    category,
                    _common([sample.path.parent for sample in members]),
                    len(tested) - len(anomalies),
                    len(anomalies),
                    sum(sample in without for sample in anomalies),
                )
            )
        return found


def lacking(counts: Sequence[TestCounts]) -> Iterator[str]:
    """Yield what lacks of test images and masks, a line for each kind.

    >>> images = TestCounts("grid", Path("grid"), normals=9, anomalies=57, unmasked=3)
    >>> print(*lacking([images]))
    3 of 57 anomalous images of 'grid' have no mask: left out of pixel metrics
    """
    if untested := [one for one in counts if not one.normals + one.anomalies]:
        yield (
            f"no test image of {_names(untested)}: training and predict only, metrics "
            "are null"
        )
    masked = [one for one in counts if one.unmasked]
    if bare := [one for one in masked if one.unmasked == one.anomalies]:
        yield (
            f"no anomalous image of {_names(bare)} has a mask: pixel metrics are null, "
            "and left out of means"
        )
    if some := [one for one in masked if one.unmasked < one.anomalies]:
        shares = ", ".join(
            f"{one.unmasked} of {one.anomalies}{' anomalous images' * (not number)} of "
            f"{one.category!r}"
            for number, one in enumerate(some)
        )
        single = len(some) == some[0].unmasked == 1
        verb = "has" if single else "have"
        yield f"{shares} {verb} no mask: left out of pixel metrics"


def lacking_problems(counts: Iterable[TestCounts]) -> Iterator[Problem]:
    """Yield a note for each category and kind of what lacks."""
    for one in counts:
        for line in lacking([one]):
            yield Problem(one.folder, line, "note")


def _common(folders: Sequence[Path]) -> Path:
    """Return the folder that all are in; a table may name some from the top, some not.

    Folders that have none in common, as on two drives, give the first.
    """
    for some in (folders, [folder.absolute() for folder in folders]):
        with suppress(ValueError):
            return Path(commonpath(some))
    return folders[0]


def _names(counts: Sequence[TestCounts]) -> str:
    return ", ".join(repr(one.category) for one in counts)
