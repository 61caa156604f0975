"""What the commands that write weight files share."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avalanche_ad.errors import AvalancheADError

__all__ = ["WEIGHTS", "command", "numbers", "write_card"]

WEIGHTS = "embedded.safetensors"
"""The weight file's name in the folder that a command writes."""


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers of an option, given with commas.

    :raises AvalancheADError: when it is something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise AvalancheADError(
            f"{option} {text!r}: expected whole numbers with commas, as 32,64"
        )
    return found


def command(module: str) -> str:
    """Return the command line as a card tells it.

    Paths are shortened to their names: a card says what, not where.

    :param module: what follows ``python -m``.
    """
    arguments = [
        Path(argument).name if "/" in argument and Path(argument).exists() else argument
        for argument in sys.argv[1:]
    ]
    return f"python -m {module} {shlex.join(arguments)}"


def write_card(weights: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json`` beside a weight file, the file's SHA-256 in it.

    :param weights: the file that was written.
    :param card: what is known about the weights, as JSON values.
    """
    whole = {**card, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    weights.with_name("card.json").write_text(json.dumps(whole, indent=1) + "\n")
