"""Which part of the model moves most from task to task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from avalanche_ad.experiments.studies.bench import Bench, Measurements, flow_model_of
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.reporting.figures import over_seeds, rows_figure
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section


def measure(bench: Bench, seed: int) -> Measurements:
    """Compare every part with itself one task before, of the categories known then."""
    strategy = bench.strategy(seed)
    rows = []
    before: dict[str, Tensor] = {}
    for task in bench.learn(strategy):
        model = flow_model_of(strategy)
        if before:
            after = _parts(model, bench.seen(task - 1))
            rows += [
                {
                    "task": task,
                    "part": part,
                    "change": float((after[part] - old).norm() / old.norm()),
                }
                for part, old in before.items()
                if old.norm()
            ]
        before = _parts(model, bench.seen(task))
        bench.report("parameter change", task + 1, bench.tasks)
    return {"rows": rows}


def _parts(model: FlowModel, categories: Sequence[int]) -> dict[str, Tensor]:
    """Return the parameters of every part as one vector."""
    parts = model.named_parts(categories)
    return {part: _vector(values) for part, values in parts.items()}


def _vector(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def _of(found: Measurements, part: str) -> float | None:
    values = [row["change"] for row in found["rows"] if row["part"] == part]
    return float(np.mean(values)) if values else None


def _names(results: Sequence[Measurements]) -> list[str]:
    return list(dict.fromkeys(row["part"] for row in results[0]["rows"]))


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return the mean relative change of every part."""
    lines = [
        [part, interval([_of(found, part) for found in results]).text()]
        for part in _names(results)
    ]
    caption = (
        "‖θ_t − θ_{t−1}‖ / ‖θ_{t−1}‖, mean over tasks; of the mixtures the rows of the "
        "categories known before, and of φ and ψ the weights that they give, since "
        "logits that start at 0 have no size to compare with. Means over seeds with "
        "95 % confidence intervals."
    )
    return [Section("Relative change per task", caption, ["part", "change"], lines)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw the mean relative change of every part."""
    names = _names(results)
    flow = [name for name in names if name.startswith("flow")]
    found = {name: interval([_of(one, name) for one in results]) for name in names}
    return rows_figure(
        {"relative change per task": found},
        {"mixture": [name for name in names if name not in flow], "flow": flow},
        f"What moves ({over_seeds(len(results))})",
    )


STUDY = Study(
    title="Change of parameters by part",
    question="How far does training on a task move every part of the model?",
    measure=measure,
    sections=sections,
    figure=figure,
)
