"""Checkpoints of a run, so that an interrupted one resumes and a finished one goes on.

A checkpoint holds pickled objects, and loading one executes what is in it. Each is
therefore signed with a key of the user's own (HMAC-SHA256), and one that this user on
this machine did not write is not opened.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import reduce
from io import BytesIO, StringIO
from pathlib import Path
from types import GeneratorType
from typing import Any

import dill
import numpy as np
import torch
from platformdirs import user_state_path

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.device import is_available

__all__ = [
    "StaleCheckpointError",
    "dump_checkpoint",
    "load_checkpoint",
    "restore_generators",
    "save_checkpoint",
]


class StaleCheckpointError(ResultsError):
    """A checkpoint refers to what is not there as it was: code, cached features."""


_SIGNATURE = hashlib.sha256().digest_size
_KEY_SIZE = 32


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a signed checkpoint, whole or not at all.

    :param path: the file.
    :param state: any objects; the states of Python's, NumPy's and torch's global
        generators are added.
    :raises Exception: whatever pickling an object or writing the file raises; a
        checkpoint that was there stays.
    """
    content = dump_checkpoint(state)
    aside = path.with_name(path.name + ".partial")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def dump_checkpoint(state: dict[str, Any]) -> bytes:
    """Return what :func:`save_checkpoint` writes."""
    buffer = BytesIO()
    with _optimizer_modules(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dill warns of what it pickles by value
        whole = {**state, "generators": _generator_states()}
        torch.save(whole, buffer, pickle_module=_Pickling)
    content = buffer.getvalue()
    return _sign(content) + content


def load_checkpoint(
    path: Path, device: torch.device | None = None
) -> dict[str, Any] | None:
    """Read a checkpoint; :func:`restore_generators` is for just before going on.

    :param path: the file.
    :param device: where tensors go that were on an accelerator that is not here.
    :return: the state, ``None`` when there is no file.
    :raises ResultsError: when it cannot be read, is damaged, its signature is not this
        user's, or, as :class:`StaleCheckpointError`, what it refers to (cached
        features, code) is gone.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"it cannot be read: {error.strerror or error}") from error
    signature, content = raw[:_SIGNATURE], raw[_SIGNATURE:]
    try:
        ours = hmac.compare_digest(signature, _sign(content))
    except OSError as error:
        raise ResultsError(
            f"the key it is signed with cannot be read: {error.strerror or error}"
        ) from error
    if not ours:
        raise ResultsError(
            "it is damaged, or was written by another user or on another machine"
        )

    def place(storage: Any, location: str) -> Any:
        here = location if device is None or is_available(location) else str(device)
        restore: Any = torch.serialization.default_restore_location
        return restore(storage, here)

    try:
        # Avalanche prints every device that it reads
        with _optimizer_modules(), redirect_stdout(StringIO()):
            state: dict[str, Any] = torch.load(
                BytesIO(content),
                map_location=place,
                pickle_module=_Pickling,
                weights_only=False,
            )
    except Exception as error:  # what it refers to may have changed in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "avalanche_ad." in reason and isinstance(
            error, (ModuleNotFoundError, AttributeError)
        ):
            raise ResultsError(
                f"it was written by another version of avalanche_ad ({reason})"
            ) from error
        raise StaleCheckpointError(
            f"what it refers to has changed: {reason}"
        ) from error
    return state


class _Pickler(dill.Pickler):  # type: ignore[misc]
    """Pickles, beside what dill does, generators that have not been started.

    Avalanche's memories keep iterators over their loaders, made anew after every
    experience: until the first draw, such a one is its function and its arguments.
    """

    def reducer_override(self, obj: object) -> Any:
        if (
            isinstance(obj, GeneratorType)
            and inspect.getgeneratorstate(obj) == inspect.GEN_CREATED
            and "<" not in obj.__qualname__  # of a module or a class
        ):
            frame = obj.gi_frame
            assert frame is not None
            module = frame.f_globals["__name__"]
            return _new_generator, (module, obj.__qualname__, dict(frame.f_locals))
        return NotImplemented


class _Pickling:
    """What torch takes for a pickle module."""

    __name__ = "avalanche_ad"
    Pickler = _Pickler
    Unpickler = dill.Unpickler
    load = staticmethod(dill.load)
    dump = staticmethod(dill.dump)


def _new_generator(
    module: str, name: str, arguments: dict[str, Any]
) -> GeneratorType[Any, Any, Any]:
    """Call the generator function that a module holds under a dotted name."""
    function: Any = reduce(getattr, name.split("."), sys.modules[module])
    made: GeneratorType[Any, Any, Any] = function(**arguments)
    return made


def _sign(content: bytes) -> bytes:
    return hmac.new(_key(), content, hashlib.sha256).digest()


def _key() -> bytes:
    """Return the user's key, made where there is none or what is there is no key."""
    path = user_state_path("avalanche_ad", ensure_exists=True) / "checkpoint.key"
    with suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) == _KEY_SIZE:
            return key
        path.unlink()  # cut short: anybody could guess it
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_SIZE))
        try:
            path.hardlink_to(aside)
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without links
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path.read_bytes()


def _generator_states() -> dict[str, Any]:
    import random

    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Set the global random generators as they were when a checkpoint was written.

    :param state: what :func:`load_checkpoint` returned.
    """
    import random

    states = state["generators"]
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"]:
        # here may be fewer than there were
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


@contextmanager
def _optimizer_modules() -> Iterator[None]:
    """Let pickling find ``torch.optim.adam`` and its kin, whose names torch deletes."""
    added = []
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if parent == "torch.optim" and not hasattr(torch.optim, child):
            setattr(torch.optim, child, module)
            added.append(child)
    try:
        yield
    finally:
        for child in added:
            delattr(torch.optim, child)
