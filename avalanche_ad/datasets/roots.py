"""One data set whose categories lie in several folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.datasets.scanning import Scan
from avalanche_ad.errors import DatasetError

__all__ = ["JoinedReader", "Roots", "as_roots"]

Roots: TypeAlias = "str | Path | Sequence[str | Path] | None"
"""Where a data set lies: a folder, several, or none where there is nothing to read."""

MakeReader: TypeAlias = "Callable[[Path, Sequence[str] | None], DiskReader]"

_SHOWN = 8


def as_roots(roots: Roots) -> tuple[Path, ...]:
    """Return folders as paths, ``~`` as the user's own.

    :raises DatasetError: when one is given twice.

    >>> as_roots("parts"), as_roots(["a", "b/c"]), as_roots(None)
    ((PosixPath('parts'),), (PosixPath('a'), PosixPath('b/c')), ())
    """
    every = (roots,) if isinstance(roots, (str, Path)) else tuple(roots or ())
    found = tuple(Path(one).expanduser() for one in every)
    seen: set[Path] = set()
    for root in found:
        if (real := root.resolve()) in seen:
            raise DatasetError(f"{root}: this data folder is given twice: name it once")
        seen.add(real)
    return found


class JoinedReader(DiskReader):
    """Read the categories of one data set from several folders.

    Each folder is read by the data set's own reader, for those of the categories
    asked for that it holds; no two may hold the same one. The categories are in
    alphabetical order where they are so in each folder, otherwise one folder after the
    other.

    :param roots: the folders.
    :param categories: a selection; all that are there otherwise.
    :param make: gives the reader of one folder, for a selection or all of it.

    >>> from avalanche_ad.datasets.readers.folder import FolderReader
    >>> reader = JoinedReader(("parts", "more"), None, FolderReader)
    >>> print(reader.check()[1])
    more: folder not found; expected <category>/train/good, <category>/test/<defect>...
    """

    def __init__(
        self,
        roots: Sequence[str | Path],
        categories: Sequence[str] | None,
        make: MakeReader,
    ) -> None:
        super().__init__(roots[0], categories)
        self.roots = as_roots(roots)
        if len({root.is_absolute() for root in self.roots}) > 1:
            # messages name what folders have in common
            self.roots = tuple(root.absolute() for root in self.roots)
        self.make = make
        first = make(self.roots[0], None)
        self.name, self.data = first.name, first.data  # type: ignore[misc]

    def scan(self) -> Scan:
        """Yield the samples of all folders, and the problems of where they are."""
        held: dict[Path, tuple[str, ...]] = {}
        for root in self.roots:
            found = [*self.make(root, None).scan()]
            held[root] = _categories(found)
            if not held[root]:
                yield self._nothing_in(root, found)
            elif self.categories is None:
                yield from _without_image(root, held[root], found)
        asked = self._asked(held)
        yield from _repeated(held, asked)
        yield from self._missing(held, asked)
        samples: list[Sample] = []
        for root, names in held.items():
            own = [name for name in names if name in asked]
            if own:
                for item in self.make(root, own).scan():
                    if isinstance(item, Problem):
                        yield item
                    else:
                        samples.append(item)
            elif names:
                text = f"ignored: no category asked for in it; it holds {_names(names)}"
                yield Problem(root, text, "note")
        rank = {name: index for index, name in enumerate(_ordered(held))}
        yield from sorted(samples, key=lambda sample: rank[sample.category])

    def _nothing_in(self, root: Path, found: Sequence[Sample | Problem]) -> Problem:
        """Return why there is no image, by a category asked for if its folder is there.

        The data set's own reader knows best what it lacks.
        """
        named = [name for name in self.categories or () if (root / name).is_dir()]
        for item in self.make(root, named).scan() if named else found:
            if isinstance(item, Problem) and item.severity == "error":
                return item
        return Problem(root, f"no image of the data set {self.name!r} found")

    def _asked(self, held: Mapping[Path, Sequence[str]]) -> tuple[str, ...]:
        if self.categories is None:
            return tuple(_ordered(held))
        named = self.categories
        return tuple(dict.fromkeys([named] if isinstance(named, str) else named))

    def _missing(
        self, held: Mapping[Path, Sequence[str]], asked: Sequence[str]
    ) -> Scan:
        known = _ordered(held)
        found = "; ".join(f"{root} holds {_names(held[root])}" for root in held)
        if not asked and known:
            text = "no category asked for; name at least one, or leave it out"
            yield Problem(self.roots[0], text)
        for name in asked:
            if name in known:
                continue
            if root := next((one for one in held if (one / name).is_dir()), None):
                inside = self.make(root, [name]).scan()
                yield from (item for item in inside if isinstance(item, Problem))
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            text = f"category {name!r} is in none of the data folders; {hint}{found}"
            yield Problem(self.roots[0], text)


def _categories(found: Sequence[Sample | Problem]) -> tuple[str, ...]:
    samples = (item for item in found if isinstance(item, Sample))
    return tuple(dict.fromkeys(sample.category for sample in samples))


def _without_image(
    root: Path, held: Sequence[str], found: Sequence[Sample | Problem]
) -> Scan:
    """Yield the errors of categories whose folder is there and holds no image."""
    for item in found:
        if not isinstance(item, Problem) or item.severity != "error":
            continue
        inside = item.path.is_relative_to(root) and item.path.relative_to(root).parts
        there = inside and inside[0] not in held and (root / inside[0]).is_dir()
        if there and not item.path.is_file():  # a table names those elsewhere too
            yield item


def _repeated(held: Mapping[Path, Sequence[str]], asked: Sequence[str]) -> Scan:
    """Yield the categories asked for that are in more than one folder."""
    for name in asked:
        there = [root for root, names in held.items() if name in names]
        if len(there) > 1:
            yield Problem(
                there[1],
                f"category {name!r} is in {there[0]} too; rename or remove one of the "
                "two, or name the categories to use",
            )


def _ordered(held: Mapping[Path, Sequence[str]]) -> list[str]:
    names = list(dict.fromkeys(name for every in held.values() for name in every))
    alphabetical = all(list(every) == sorted(every) for every in held.values())
    return sorted(names) if alphabetical else names


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    return shown + (", …" if len(names) > _SHOWN else "")
