"""Save and load models as safetensors and JSON, without pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from avalanche_ad.errors import RecipeError, ResultsError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.registry import MODELS

__all__ = ["load_model", "save_model", "with_way"]

_WEIGHTS, _DESCRIPTION = "model.safetensors", "model.json"


def save_model(
    model: AnomalyModel,
    folder: Path,
    name: str,
    options: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder.

    :param model: the model; its dynamic Avalanche form is saved as the plain one.
    :param folder: an existing folder.
    :param name: of its class, or the class's dotted path, as
        :data:`~avalanche_ad.models.registry.MODELS` knows it.
    :param options: the arguments it was built with, but layout and categories.
    :param extra: anything else that prediction needs, as JSON values.
    """
    state: dict[str, Tensor] = {}
    met: set[int] = set()
    for key, tensor in model.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        # safetensors holds no memory twice
        state[key] = kept.clone() if kept.data_ptr() in met else kept
        met.add(kept.data_ptr())
    # not save_file, whose errors are no OSError, whose own file stays after a kill, and
    # which writes for the owner alone, whatever the umask says
    (folder / _WEIGHTS).write_bytes(save(state))
    description = {
        "schema": 1,
        "type": name,
        "options": dict(options),
        "levels": [list(level) for level in model.layout.levels],
        "num_categories": model.num_categories,
        **extra,
    }
    text = json.dumps(description, indent=1, allow_nan=False)
    (folder / _DESCRIPTION).write_text(text + "\n", "utf-8")


def with_way(error: RecipeError) -> str:
    """Return what is missing, and how what another package brings comes back."""
    said = str(error)
    if "PYTHONPATH" in said:
        return said
    return (
        f"{said}; what another package brings is there when that package is installed, "
        "or its module on PYTHONPATH"
    )


def load_model(
    folder: Path, form: Callable[[type[AnomalyModel]], Any] = lambda made: made
) -> tuple[AnomalyModel, dict[str, Any]]:
    """Read a model back, in evaluation mode.

    :param folder: where :func:`save_model` wrote.
    :param form: makes of a model's class the one to build.
    :return: the model and its description.
    :raises ResultsError: when a file is missing, damaged or of another version.
    """
    description_file, weights_file = folder / _DESCRIPTION, folder / _WEIGHTS
    for path in (description_file, weights_file):
        if not path.is_file():
            raise ResultsError(
                f"{folder} holds no trained model ({path.name} is missing): give the "
                "folder of a finished run"
            )
    try:
        description = json.loads(description_file.read_text("utf-8"))
        if description["schema"] != 1:
            raise ResultsError(
                f"{description_file}: expected schema 1, found "
                f"{description['schema']}: it was written by another version"
            )
        layout = FeatureLayout(tuple(tuple(level) for level in description["levels"]))
        state = load_file(weights_file)
        # of before there was such an option
        options = {
            "position_calibration": any(name.startswith("positions.") for name in state)
        }
        made = form(MODELS.find(description["type"]))
        model: AnomalyModel = made(
            layout,
            num_categories=description["num_categories"],
            **{**options, **description["options"]},
        )
        model.load_state_dict(state)
        if model.num_categories != description["num_categories"]:
            raise ValueError(
                f"size mismatch: expected {description['num_categories']} categories, "
                f"the weights are of {model.num_categories}"
            )
        model.name_categories(dict(enumerate(description.get("categories", ()))))
    except ResultsError:
        raise
    except RecipeError as error:
        raise ResultsError(f"{description_file}: {with_way(error)}") from error
    except (
        OSError,
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(
            f"{folder}: the saved model is damaged or not one of this version "
            f"({type(error).__name__}: {reason}); run the experiment again"
        ) from error
    model.eval()
    return model, description
