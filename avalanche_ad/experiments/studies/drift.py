"""How far the latents of old categories leave their centres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from avalanche_ad.experiments.studies.bench import Bench, Measurements, flow_model_of
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.evaluating import evaluating, seeded
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.reporting.figures import draw_intervals, over_seeds
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section
from avalanche_ad.training.plugins.gmm_alignment import drawn_latents

LEVEL = 0  # the finest
SHOWN = 150  # latents per category in the picture


def measure(bench: Bench, seed: int) -> Measurements:
    """Follow mean latents of real images and main centres from task to task."""
    strategy = bench.strategy(seed)
    means: list[dict[int, Tensor]] = []
    centers: list[Tensor] = []
    clouds: list[dict[int, Tensor]] = []
    for task in bench.learn(strategy):
        model = flow_model_of(strategy)
        with evaluating(model), seeded(seed):
            means.append(
                {
                    category: drawn_latents(model, LEVEL, x, len(x) * 10_000).mean(0)
                    for category, x in bench.normals(bench.seen(task)).items()
                }
            )
            if task in (0, bench.tasks - 1):
                clouds.append(
                    {
                        category: drawn_latents(model, LEVEL, x, SHOWN)
                        for category, x in bench.normals(bench.seen(0)).items()
                    }
                )
        centers.append(_main_centers(model))
        bench.report("drift", task + 1, bench.tasks)
    rows = []
    for task in range(bench.tasks):
        for learned in range(task + 1):
            for category in bench.categories(learned):
                mean, center = means[task][category], centers[task][category]
                rows.append(
                    {
                        "after": task,
                        "learned": learned,
                        "category": bench.stream.category_names[category],
                        "gap": float((mean - center).norm()),
                        "drift": float((mean - means[learned][category]).norm()),
                        "center_drift": float(
                            (center - centers[learned][category]).norm()
                        ),
                    }
                )
    every = bench.seen(bench.tasks - 1)
    last = torch.stack([means[-1][category] for category in every])
    learned_means = torch.stack(
        [
            means[task][category]
            for task in range(bench.tasks)
            for category in bench.categories(task)
        ]
    )
    learned_centers = torch.stack(
        [
            centers[task][category]
            for task in range(bench.tasks)
            for category in bench.categories(task)
        ]
    )
    return {
        "rows": rows,
        "names": [bench.stream.category_names[category] for category in every],
        "learned": torch.cdist(learned_means, learned_centers).tolist(),
        "last": torch.cdist(last, centers[-1][every]).tolist(),
        "embedding": _embedded(clouds, centers, bench.seen(0)),
    }


def _main_centers(model: FlowModel) -> Tensor:
    return model.category_centers(LEVEL).detach().clone()


def _embedded(
    clouds: Sequence[dict[int, Tensor]],
    centers: Sequence[Tensor],
    categories: Sequence[int],
) -> list[Measurements]:
    """Return latents and centres of task 1 in a plane, when learned and at the end."""
    every = torch.cat([z for cloud in clouds for z in cloud.values()]).cpu().numpy()
    plane = PCA(2).fit(every)
    return [
        {
            "latents": [
                np.round(plane.transform(cloud[c].cpu().numpy()), 3).tolist()
                for c in categories
            ],
            "centers": np.round(
                plane.transform(center[list(categories)].cpu().numpy()), 3
            ).tolist(),
        }
        for cloud, center in zip(clouds, (centers[0], centers[-1]), strict=False)
    ]


def _curve(found: Measurements, key: str, since: int) -> float:
    values = [
        row[key] for row in found["rows"] if row["after"] - row["learned"] == since
    ]
    return float(np.mean(values))


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return the distances by the number of tasks since a category was learned."""
    longest = max(row["after"] for row in results[0]["rows"])
    lines = [
        [
            str(since),
            *[
                interval([_curve(found, key, since) for found in results]).text(2)
                for key in ("gap", "drift", "center_drift")
            ],
        ]
        for since in range(longest + 1)
    ]
    caption = (
        "Euclidean distances on the finest level, means over categories; the mixture's "
        "Gaussians have a standard deviation of 1 in every direction. Means over seeds "
        "with 95 % confidence intervals."
    )
    head = [
        "tasks since",
        "mean latent to its centre",
        "mean latent to where it was",
        "centre to where it was",
    ]
    return [Section("Distances since a category was learned", caption, head, lines)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw drift over tasks, distance matrices and task 1 in the plane, of a seed."""
    found = results[0]
    drawn = Figure(figsize=(12, 7), layout="constrained")
    panels = drawn.subplot_mosaic([["curves", *"ab"], ["curves", *"cd"]])
    curves = panels["curves"]
    longest = max(row["after"] for row in found["rows"])
    for shift, key, label in (
        (-0.08, "gap", "mean latent to its centre"),
        (0.0, "drift", "mean latent to where it was"),
        (0.08, "center_drift", "centre to where it was"),
    ):
        values = [
            interval([_curve(one, key, since) for one in results])
            for since in range(longest + 1)
        ]
        # beside each other, so that no interval hides another
        draw_intervals(curves, np.arange(longest + 1) + shift, values, label=label)
    curves.set(xlabel="tasks since it was learned", ylabel="distance")
    curves.set_title(over_seeds(len(results)), fontsize=10)
    curves.set_xticks(range(longest + 1))
    curves.set_ylim(top=1.15 * curves.get_ylim()[1])
    curves.grid(alpha=0.3)
    curves.legend(fontsize=8, loc="upper left")
    top = float(np.max([np.max(found[key]) for key in ("learned", "last")]))
    titles = ("when learned", "after the last task")
    for name, key, title in zip("ab", ("learned", "last"), titles, strict=True):
        axes = panels[name]
        shown = axes.imshow(found[key], vmin=0, vmax=top, cmap="viridis_r")
        axes.set_title(f"latents to centres, {title}", fontsize=10)
        axes.set_xlabel("centre, in this order")
        axes.set_yticks(range(len(found["names"])), found["names"], fontsize=7)
        axes.set_xticks([])
    drawn.colorbar(shown, ax=panels["b"], shrink=0.8, label="distance")
    every = np.concatenate(
        [np.reshape(one["latents"], (-1, 2)) for one in found["embedding"]]
    )
    limits = np.stack([every.min(0), every.max(0)]) + [[-1.0], [1.0]]
    for name, one, title in zip("cd", found["embedding"], titles, strict=True):
        axes = panels[name]
        for number, points in enumerate(one["latents"]):
            xy, label = np.array(points), found["names"][number]
            axes.scatter(xy[:, 0], xy[:, 1], s=6, alpha=0.5, label=label)
            center = one["centers"][number]
            axes.scatter(*center, marker="X", s=110, edgecolor="black", c=f"C{number}")
        axes.set_title(f"task 1 {title}", fontsize=10)
        axes.set(xlabel="PC 1", ylabel="PC 2")
        axes.set(xlim=limits[:, 0], ylim=limits[:, 1])
    panels["c"].legend(fontsize=8)
    drawn.suptitle(
        "Latents and centres (crosses); matrices and planes are of the first seed"
    )
    return drawn


STUDY = Study(
    title="Drift of latents and centres",
    question=(
        "Where does the flow map the real training images of every category after each "
        "task, and where are the centres?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
