"""Checkpoints between experiences, so that an interrupted run resumes.

A checkpoint holds pickled objects, and loading one executes what is in it. Each is
therefore signed with a key of the user's own (HMAC-SHA256), and one that this user on
this machine did not write is not opened.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import reduce
from io import BytesIO, StringIO
from pathlib import Path
from types import GeneratorType
from typing import Any

import dill
import numpy as np
import torch
from platformdirs import user_state_path

__all__ = ["load_checkpoint", "restore_generators", "save_checkpoint"]

_log = logging.getLogger(__name__)
_SIGNATURE = hashlib.sha256().digest_size


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a signed checkpoint, whole or not at all.

    :param path: the file.
    :param state: any objects; the states of Python's, NumPy's and torch's global
        generators are added.
    """
    buffer = BytesIO()
    with _optimizer_modules(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dill warns of what it pickles by value
        _Pickler(buffer).dump({**state, "generators": _generator_states()})
    content = buffer.getvalue()
    aside = path.with_name(path.name + ".partial")
    with aside.open("wb") as file:
        file.write(_sign(content) + content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; :func:`restore_generators` is for just before going on.

    :param path: the file.
    :return: the state, or ``None`` when there is no file, it is damaged, its signature
        is not this user's, or what it refers to (cached features, code) is gone.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    signature, content = raw[:_SIGNATURE], raw[_SIGNATURE:]
    if not hmac.compare_digest(signature, _sign(content)):
        return None
    try:
        # Avalanche prints every device that it reads
        with _optimizer_modules(), redirect_stdout(StringIO()):
            state: dict[str, Any] = dill.loads(content)
    except Exception as error:  # what it refers to may have changed in any way
        _log.warning("%s cannot be resumed (%s); the run starts anew", path, error)
        return None
    return state


class _Pickler(dill.Pickler):  # type: ignore[misc]
    """Pickles, beside what dill does, generators that have not been started.

    Avalanche's memories keep iterators over their loaders, made anew after every
    experience: until the first draw, such a one is its function and its arguments.
    """

    def reducer_override(self, obj: object) -> Any:  # noqa: ANN401
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
    path = user_state_path("avalanche_ad", ensure_exists=True) / "checkpoint.key"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
    return key


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
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


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
