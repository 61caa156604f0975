"""One sort of class by name, whoever wrote it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from avalanche_ad.errors import RecipeError
from avalanche_ad.registry.dotted_path import resolve

__all__ = ["Registry", "brought_by", "unknown"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one sort, each found by its name, its path or an entry point.

    - The package's own are the classes that a module of one of its folders holds and
      that have a name of their own: a new one is a new file there.
    - Another package's are the entry points it declares, here for backbones::

          [project.entry-points."avalanche_ad.backbones"]
          my_backbone = "my_package.my_module:MyBackbone"

    - Any class goes by its dotted path, such as ``my_module.MyBackbone``, also one of a
      module that lies beside the recipe's file.

    :param sort: what one is called in an error, such as ``"backbone"``.
    :param base: dotted path of the class that all of them derive from.
    :param folder: dotted path of the package whose modules hold the own ones.
    :param named_by: class attribute that holds a name, ``"__name__"`` for the class's
        own; a class that starts with an underscore has none.
    :param such_as: a dotted path that would do, for errors.
    :param also: what else could be given in the place of a name, for errors.

    >>> from avalanche_ad.features.registry import BACKBONES
    >>> "filterbank" in BACKBONES.names()
    True
    """

    def __init__(
        self,
        sort: str,
        base: str,
        folder: str,
        *,
        named_by: str = "name",
        such_as: str = "",
        also: str = "",
    ) -> None:
        self.sort = sort
        self.group = f"avalanche_ad.{sort.replace(' ', '_')}s"
        self.named_by = named_by
        self.such_as = such_as or f"my_module.My{base.rpartition('.')[2]}"
        self.also = also
        self._base = base
        self._folder = folder

    @cached_property
    def base(self) -> type[T]:
        """The class that all of them derive from."""
        module, _, name = self._base.rpartition(".")
        found: type[T] = getattr(importlib.import_module(module), name)
        return found

    @cached_property
    def own(self) -> dict[str, type[T]]:
        """The package's own classes by name, in the order of their files."""
        package = importlib.import_module(self._folder)
        found: dict[str, type[T]] = {}
        for entry in pkgutil.iter_modules(package.__path__):
            if entry.name.startswith("_"):
                continue
            module = importlib.import_module(f"{self._folder}.{entry.name}")
            for value in vars(module).values():
                name = self._name(value) if self._is_own(value, module.__name__) else ""
                if name and found.setdefault(name, value) is not value:
                    raise RecipeError(
                        f"{self.sort} {name!r} is in {found[name].__module__} and in "
                        f"{value.__module__}: give one another {self.named_by}"
                    )
        return found

    def _is_own(self, value: object, module: str) -> bool:
        return (
            inspect.isclass(value)
            and issubclass(value, self.base)
            and not inspect.isabstract(value)
            and f"{value.__module__}.".startswith(f"{module}.")
        )

    def _name(self, kind: type) -> str:
        """Return the name of a class, empty for one that has none of its own."""
        if self.named_by != "__name__":
            return str(vars(kind).get(self.named_by, ""))
        return "" if kind.__name__.startswith("_") else kind.__name__

    @property
    def others(self) -> dict[str, EntryPoint]:
        """The entry points of other packages by name, none of them imported."""
        return {entry.name: entry for entry in declared(self.group)}

    def names(self) -> tuple[str, ...]:
        """Return the names there are, other packages' last."""
        return (*self.own, *(name for name in self.others if name not in self.own))

    def origin(self, name: str) -> str:
        """Return the distribution that brings a name, empty for the package's own."""
        entry = self.others.get(name)
        return "" if name in self.own or entry is None else brought_by(entry)

    def find(self, name: object, folder: Path | None = None) -> type[T]:
        """Return the class of a name.

        :param name: a name or a dotted path.
        :param folder: where modules are looked for that are found nowhere else: that of
            the recipe's file.
        :raises RecipeError: when there is none, it is no class of this sort, or two
            packages offer the name.
        """
        if not isinstance(name, str):
            raise RecipeError(f"expected the name of a {self.sort}, got {name!r}")
        offered = [entry for entry in declared(self.group) if entry.name == name]
        own = self.own.get(name)
        by = [brought_by(entry) for entry in offered]
        if own is not None:
            if by:
                warnings.warn(
                    f"{self.sort} {name!r} is the package's own; that of "
                    f"{' and '.join(by)} goes by its dotted path",
                    stacklevel=2,
                )
            return own
        if len(offered) > 1:
            raise RecipeError(
                f"{self.sort} {name!r} is offered by {' and '.join(by)}: give the "
                "dotted path of the class that is meant, or uninstall one of them"
            )
        if offered:
            return self._whole(self._loaded(offered[0]), name)
        if "." in name:
            found = resolve(name, (self.base,), self.sort, folder, self.such_as)
            return self._whole(found, name)
        raise RecipeError(unknown(self.sort, name, self.names(), self.also))

    def _whole(self, found: type[T], name: str) -> type[T]:
        """Refuse a class that lacks something of what each of the sort has."""
        if lacks := sorted(getattr(found, "__abstractmethods__", ())):
            raise RecipeError(
                f"{self.sort} {name!r} is not whole: {found.__name__} lacks "
                f"{', '.join(lacks)}, which every {self.sort} has"
            )
        return found

    def _loaded(self, entry: EntryPoint) -> type[T]:
        """Return the class of another package's entry point."""
        by = f" of {entry.dist.name}" if entry.dist else ""
        path = entry.value.replace(":", ".")
        what = f"{self.sort} {entry.name!r}{by}:"
        return resolve(path, (self.base,), what)


def declared(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group that installed packages declare.

    The files of all packages are read again only when ``sys.path`` or a folder on it
    changed.
    """
    return _declared(group, tuple(map(_place, sys.path)))


@lru_cache(maxsize=32)
def _declared(
    group: str, places: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def _place(path: str) -> tuple[str, int]:
    """Return a folder and when something was last put into it."""
    folder = path or str(Path.cwd())
    try:
        return folder, Path(folder).stat().st_mtime_ns
    except OSError:
        return folder, 0


def brought_by(entry: EntryPoint) -> str:
    """Return the distribution that declares an entry point."""
    return entry.dist.name if entry.dist else entry.value


def unknown(what: str, name: str, known: Iterable[str], also: str = "") -> str:
    """Return what to say of a name that is none, with the nearest that is one.

    :param what: what it should be the name of.
    :param name: the name given.
    :param known: the names there are.
    :param also: what else could be given.

    >>> unknown("backbone", "embeded", ["embedded"])
    "unknown backbone 'embeded' (did you mean 'embedded'?); there are embedded"
    """
    known = list(known)
    close = get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {name!r}{hint}; there are {', '.join(known)}{also}"
