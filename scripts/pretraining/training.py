"""Train the classifier: repeatable for a seed, resumed after a kill."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.optim.muon import Muon
from torch import Tensor
from torch.nn.functional import cross_entropy

from avalanche_ad.datasets.validation import Progress
from avalanche_ad.errors import RecipeError, ResultsError
from avalanche_ad.features.residual_trunk import ResidualArchitecture
from pretraining.augmentation import (
    colour_jitter,
    crop,
    crop_windows,
    places_in_both,
)
from pretraining.contrast import PLACES
from pretraining.network import Classifier
from pretraining.photographs import Photographs

__all__ = [
    "MEAN",
    "STD",
    "Settings",
    "autocast_dtype",
    "normalised",
    "train",
]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_CHECKPOINT = "checkpoint.pt"
_METRICS = "metrics.csv"


@dataclass(frozen=True)
class Settings:
    """All that decides the weights, besides the photographs.

    :param architecture: sizes of the network.
    :param epochs: passes over the photographs.
    :param batch_size: images a step.
    :param lr: highest learning rate of the one-cycle schedule.
    :param weight_decay: of the filters and the classifiers.
    :param smoothing: label smoothing.
    :param contrast: weight of the contrastive loss, for which a step sees two views of
        each of its images, see :class:`~pretraining.contrast.Projections`.
    :param labels: whether classes teach the network, or the classifier alone.
    :param colour: strength of the changes of colour, half of it the share of views
        that lose theirs.
    :param size: side of the photographs in pixels.
    :param first_size: side of the views in the first epoch; it rises in steps of 8 to
        ``size`` in the last (progressive learning: Tan & Le, EfficientNetV2, ICML
        2021), which saves two fifths of the time.
    :param seed: decides the first weights, the order and every view.
    :raises RecipeError: for a width that timm's blocks do not take.
    """

    architecture: ResidualArchitecture = field(default_factory=ResidualArchitecture)
    epochs: int = 18
    batch_size: int = 256
    lr: float = 8e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    contrast: float = 0.0
    labels: bool = True
    colour: float = 0.2
    size: int = 64
    first_size: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        for width in self.architecture.channels:
            if width % 8:
                raise RecipeError(
                    f"--channels has {width}; timm's blocks take multiples of 8"
                )
        if not (self.contrast or self.labels):
            raise RecipeError(
                "--no-labels leaves nothing to learn from; take --contrast with it"
            )

    def view_size(self, epoch: int) -> int:
        """Return the side of the views in an epoch, counted from 0."""
        done = epoch / (self.epochs - 1) if self.epochs > 1 else 1.0
        grown = self.first_size + (self.size - self.first_size) * done
        return self.size if done == 1 else min(8 * round(grown / 8), self.size)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that matrix products run in.

    :param precision: ``bfloat16``, ``float32``, or ``auto``: bfloat16 where the
        processor has instructions for it.
    :param device: where training runs.
    :raises RecipeError: for another name.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise RecipeError(
            f"--precision {precision!r} is unknown; expected auto, bfloat16 or float32"
        )
    if precision == "auto":
        if device.type == "cuda":
            has = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            found = torch.cpu.get_capabilities()
            has = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
        precision = "bfloat16" if has else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def train(
    photographs: Photographs,
    settings: Settings,
    out: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> tuple[Classifier, list[dict[str, float]]]:
    """Train from where ``out`` left off, or from the start.

    After every epoch the state is written aside and renamed, so that a kill costs at
    most an epoch; every epoch draws from a generator of its own, so a resumed training
    ends at the same weights (with ``contrast`` on a CPU only: the gradient of
    interpolation has no order on a GPU).

    Filters are trained by Muon, which makes the singular values of a step equal, and
    all else by AdamW (Jordan et al., "Muon: An optimizer for hidden layers in neural
    networks", 2024; timm's).

    :param photographs: what to train and validate on.
    :param settings: what decides the weights.
    :param out: folder of the checkpoint and of ``metrics.csv``.
    :param device: where to compute.
    :param dtype: what matrix products run in, see :func:`autocast_dtype`.
    :param progress: called with (steps done, steps in all).
    :return: the trained network and one row of figures per epoch.
    :raises ResultsError: when ``out`` holds a training of other settings.
    """
    images, labels = photographs.select(held_out=False)
    steps = len(images) // settings.batch_size
    if not steps:
        raise RecipeError(
            f"--batch-size {settings.batch_size} is more than the {len(images)} "
            "photographs; take a smaller one"
        )
    classes = len(photographs.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Classifier(
            settings.architecture,
            classes,
            contrast=settings.contrast > 0,
            labels=settings.labels,
        )
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = Muon(
        _parameter_groups(model, settings.weight_decay),
        lr=settings.lr,
        nesterov=True,
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps * settings.epochs
    )
    identity = json.dumps(
        {
            "settings": asdict(settings),
            "images": len(images),
            "classes": classes,
            "dtype": str(dtype),
            "device": device.type,
        },
        sort_keys=True,
    )
    rows = _resume(out, identity, model, optimizer, schedule)
    for epoch in range(len(rows), settings.epochs):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(settings.seed * 10_007 + epoch)
        order = torch.randperm(len(images), generator=generator)
        model.train()
        losses, right = [], torch.zeros((), device=device)
        for step in range(steps):
            chosen = order[
                step * settings.batch_size : (step + 1) * settings.batch_size
            ]
            batch = draw_batch(
                images[chosen].to(device),
                labels[chosen].to(device),
                settings,
                settings.view_size(epoch),
                generator,
            )
            optimizer.zero_grad(set_to_none=True)
            with torch.backends.cudnn.flags(deterministic=True):
                with torch.autocast(device.type, dtype, dtype != torch.float32):
                    logits, contrast = model(normalised(batch.views), batch.places)
                loss = settings.contrast * contrast + cross_entropy(
                    logits, batch.labels, label_smoothing=settings.smoothing
                )
                loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            right += (logits.detach().argmax(1) == batch.labels).sum()
            if progress is not None:
                progress(epoch * steps + step + 1, settings.epochs * steps)
        rows.append(
            {
                "epoch": epoch + 1,
                "loss": float(torch.stack(losses).mean()),
                "train_accuracy": float(right) / (steps * len(batch.views)),
                **validation(model, photographs, device=device, dtype=dtype),
                "lr": float(schedule.get_last_lr()[0]),
                "seconds": time.perf_counter() - started,
            }
        )
        if not torch.isfinite(losses[-1]):
            raise RecipeError(
                f"the loss is {rows[-1]['loss']} after epoch {epoch + 1}; "
                "take a smaller --lr"
            )
        _save(out, identity, model, optimizer, schedule, rows)
    return model, rows


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    :param views: (N, 3, S, S); with two views of each image first all first ones, then
        all second ones.
    :param labels: (N,) classes that they show.
    :param places: places of each image in its first and in its second view.
    """

    views: Tensor
    labels: Tensor
    places: tuple[Tensor, Tensor] | None = None


def draw_batch(
    images: Tensor,
    labels: Tensor,
    settings: Settings,
    size: int,
    generator: torch.Generator,
) -> Batch:
    """Draw the views of a step.

    :param images: (N, 3, S, S), uint8.
    :param labels: (N,).
    :param settings: what is drawn.
    :param size: side of the views in pixels.
    :param generator: source of every choice, on the CPU.
    """
    whole, places = images.to(torch.float32).div_(255.0), None
    windows = [
        crop_windows(len(images), generator)
        for _ in range(2 if settings.contrast else 1)
    ]
    views = torch.cat([crop(whole, part, size) for part in windows])
    if settings.contrast:
        places = places_in_both(windows[0], windows[1], PLACES, generator)
    views = colour_jitter(views, generator, settings.colour, settings.colour / 2)
    return Batch(views, labels.repeat(len(windows)), places)


@torch.no_grad()
def validation(
    model: Classifier,
    photographs: Photographs,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Return loss and accuracy on the photographs held out.

    :param model: the network; left in evaluation mode.
    :param photographs: those whose ``held_out`` is set count.
    :param device: where to compute.
    :param dtype: what matrix products run in.
    """
    images, labels = photographs.select(held_out=True)
    if not len(images):
        return {"validation_loss": float("nan"), "validation_accuracy": float("nan")}
    model.eval()
    loss, right = 0.0, 0
    for part, target in zip(
        torch.split(images, 256), torch.split(labels, 256), strict=True
    ):
        views = part.to(device, torch.float32) / 255.0
        with torch.autocast(device.type, dtype, dtype != torch.float32):
            logits, _ = model(normalised(views))
        target = target.to(device)
        loss += float(cross_entropy(logits, target, reduction="sum"))
        right += int((logits.argmax(1) == target).sum())
    return {
        "validation_loss": loss / len(images),
        "validation_accuracy": right / len(images),
    }


def normalised(images: Tensor) -> Tensor:
    """Return images (N, 3, S, S) in [0, 1] as the network takes them."""
    mean, std = (images.new_tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _parameter_groups(model: Classifier, decay: float) -> list[dict[str, Any]]:
    """Return the filters, for Muon; the classifiers and the vectors, for AdamW.

    Vectors, biases and the scales of normalisation, do not decay.
    """
    trunk = list(model.network.parameters())
    parts = [part for name, part in model.named_children() if name != "network"]
    heads = [p for part in parts for p in part.parameters()]
    filters = [p for p in trunk if p.dim() > 1]
    classifiers = [p for p in heads if p.dim() > 1]
    vectors = [p for p in (*trunk, *heads) if p.dim() <= 1]
    return [
        {"params": filters, "weight_decay": decay},
        {"params": classifiers, "weight_decay": decay, "use_fallback": True},
        {"params": vectors, "weight_decay": 0.0, "use_fallback": True},
    ]


def _resume(
    out: Path,
    identity: str,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> list[dict[str, float]]:
    """Load the state of ``out`` if it has one, and return its rows."""
    path = out / _CHECKPOINT
    if not path.is_file():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as error:
        # torch.load names no common class for damage
        raise ResultsError(
            f"{path} is damaged; delete it to train from the start"
        ) from error
    if found != identity:
        raise ResultsError(
            f"{out} holds a training of other settings or photographs; "
            "give another --out, or delete it"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    rows: list[dict[str, float]] = state["rows"]
    return rows


def _save(
    out: Path,
    identity: str,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    rows: list[dict[str, float]],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rows": rows,
    }
    aside = out / f"{_CHECKPOINT}.partial"
    torch.save(state, aside)
    aside.replace(out / _CHECKPOINT)
    aside = out / f"{_METRICS}.partial"
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(out / _METRICS)
