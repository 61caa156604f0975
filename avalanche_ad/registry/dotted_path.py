"""Classes by dotted path: where they are looked for, and why one is not found.

A module that lies beside a recipe's file is found as Python finds one beside a script.
The recipe's folder goes to the end of ``sys.path`` and stays there: classes are pickled
by the name of their module, which has to be found again when a checkpoint is read.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType

from avalanche_ad.errors import RecipeError

__all__ = ["modules_beside", "resolve"]

_OURS = ("avalanche", "avalanche_ad")
_LISTED = 12
_folders: list[Path] = []
"""Folders of recipes whose modules this process imports."""


def resolve(
    path: object,
    bases: tuple[type, ...],
    what: str,
    folder: Path | None = None,
    such_as: str = "avalanche.training.plugins.EWCPlugin",
) -> type:
    """Return the class a dotted path names, if it is one of the expected kind.

    :param path: for example ``avalanche.training.plugins.EWCPlugin``.
    :param bases: the class must derive from one of these.
    :param what: how to call it in an error.
    :param folder: where modules are looked for that are found nowhere else: that of
        the recipe's file.
    :param such_as: a path that would do, for errors.
    :raises RecipeError: when it does not exist, is something else, or its module fails
        to import.
    """
    such_as = f"such as {such_as!r}"
    if not isinstance(path, str):
        raise RecipeError(
            f"{what}: expected a dotted path as text, {such_as}, got {path!r}"
        )
    told = f"{what} {path!r}"
    module_name, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module_name:
        raise RecipeError(
            f"{told}: there is no such class; expected a dotted path {such_as}"
        )
    module = _imported(module_name, told, folder, such_as)
    found = getattr(module, name, None)
    if found is None:
        raise RecipeError(f"{told}: {_no_class(module, name, bases, folder, such_as)}")
    if not (inspect.isclass(found) and issubclass(found, bases)):
        expected = " or ".join(f"{base.__module__}.{base.__name__}" for base in bases)
        raise RecipeError(f"{told} is not a subclass of {expected}")
    return found


def modules_beside(folder: Path) -> dict[str, Path]:
    """Return the files of the modules beside a recipe that have been imported, by name.

    :param folder: the recipe's.
    """
    tops, found = _modules(folder) - {*_OURS}, {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.partition(".")[0] not in tops:
            continue
        path = Path(file).resolve()
        if folder in path.parents and path.is_file():
            found[name] = path
    return found


def _imported(name: str, told: str, folder: Path | None, such_as: str) -> ModuleType:
    """Import a module, from a recipe's folder where it is found nowhere else.

    :param told: how an error starts.
    """
    top = name.partition(".")[0]
    if folder is not None and top not in _OURS and _holds(folder, top):
        _join(folder, told)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}."):
            beside = f"beside the recipe in {folder} or " if folder else ""
            raise RecipeError(
                f"{told}: there is no such class: no module {missing!r} {beside}on "
                f"sys.path; expected a dotted path {such_as}: put the module beside "
                "the recipe's file, install it, or set PYTHONPATH"
            ) from None
        by = _last_frame(error.__traceback__, folder)[2]
        reason = f"{error} (imported by {by or name})"
        raise RecipeError(f"{told}: {reason}") from error
    except SyntaxError as error:
        reason = f"{type(error).__name__}: {error.msg}"
        place = f"{error.filename}, line {error.lineno}"
        raise RecipeError(f"{told}: {reason} ({place})") from error
    except (Exception, SystemExit) as error:  # whatever the module does on import
        file, line, _ = _last_frame(error.__traceback__, folder)
        words = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise RecipeError(f"{told}: {reason} ({file}, line {line})") from error


def _holds(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def _join(folder: Path, told: str) -> None:
    """Put a recipe's folder at the end of the path, if it can be told from others.

    :raises RecipeError: when another recipe's folder has a module of the same name:
        Python knows modules by their names alone.
    """
    own = _modules(folder)
    for other in _folders:
        if other != folder and (twins := sorted(own & _modules(other))):
            raise RecipeError(
                f"{told}: {folder} and {other} both hold a module {twins[0]!r}, and "
                "one process can have only one of that name: rename one, or run the "
                "recipes apart"
            )
    if folder not in _folders:
        _folders.append(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _modules(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder, if it still exists."""
    if not folder.is_dir():
        return set()
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def _no_class(
    module: ModuleType,
    name: str,
    bases: tuple[type, ...],
    folder: Path | None,
    such_as: str,
) -> str:
    """Say that a module lacks a class, and what it has."""
    file, top = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    fitting = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, bases)
        if not key.startswith("_") and value.__module__.partition(".")[0] == top
    ]
    beside = folder is not None and top not in _OURS and _holds(folder, top)
    hidden = ""
    if beside and file is not None and folder not in Path(file).resolve().parents:
        hidden = f" ({file} hides the one in {folder}, which needs another name)"
    near = get_close_matches(name, fitting, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    has = ""
    if len(fitting) <= _LISTED:
        has = f"; it has {', '.join(sorted(fitting)) or 'none that fits'}"
    return (
        f"there is no such class in module {module.__name__!r}{hidden}{hint}{has}; "
        f"expected a dotted path {such_as}"
    )


def _last_frame(
    trace: TracebackType | None, folder: Path | None
) -> tuple[str, int, str]:
    """Return file, line and module where an import failed.

    The innermost one in the recipe's folder, where there is one: what it calls may fail
    deep in another package.
    """
    frames = [
        (frame.f_code.co_filename, line, frame.f_globals.get("__name__", ""))
        for frame, line in traceback.walk_tb(trace)
        if "importlib" not in frame.f_code.co_filename
        if frame.f_globals.get("__name__") != __name__
    ]
    own = [
        one for one in frames if folder is not None and folder in Path(one[0]).parents
    ]
    return (own or frames or [("", 0, "")])[-1]
