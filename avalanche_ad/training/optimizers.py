"""HGAD's optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from avalanche_ad.models.anomaly_model import AnomalyModel

__all__ = ["make_optimizer", "replace_parameters", "warmup_cosine"]


def make_optimizer(
    model: nn.Module,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.95, 0.99),
    weight_decay: float = 1e-4,
    centers_lr_factor: float = 1.0,
) -> Adam:
    """Return HGAD's Adam, with the groups of parameters that the model asks for.

    :param model: an :class:`~avalanche_ad.models.AnomalyModel`, or any module.
    :param lr: learning rate.
    :param betas: Adam's decay rates.
    :param weight_decay: L2 penalty of the parameters that have one; a flow-GMM's
        flows.
    :param centers_lr_factor: learning rate of a flow-GMM's centres relative to ``lr``.

    Source: Yao et al., ECCV 2024, Sec. 4.1, and its released code.
    """
    if isinstance(model, AnomalyModel):
        groups = model.parameter_groups(
            lr, weight_decay, centers_lr_factor=centers_lr_factor
        )
    else:
        groups = [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    return Adam(groups, lr=lr, betas=betas, fused=True)


@torch.no_grad()
def replace_parameters(optimizer: Optimizer, grown: Mapping[Tensor, Tensor]) -> None:
    """Let an optimizer go on with parameters that have more rows than they had.

    What it keeps per row, such as Adam's moments, stays; that of new rows is 0, as
    where a parameter never had a gradient.

    :param optimizer: any of torch's.
    :param grown: the parameter that takes each one's place, with rows at its end.
    """
    for group in optimizer.param_groups:
        group["params"] = [grown.get(one, one) for one in group["params"]]
    for old, new in grown.items():
        kept = optimizer.state.pop(old, None)
        if kept is None:
            continue
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                kept[name] = new.new_zeros(new.shape, dtype=value.dtype)
                kept[name][: len(value)] = value
        optimizer.state[new] = kept


def warmup_cosine(
    step: int, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0
) -> float:
    """Return the learning-rate factor: linear warm-up, then half a cosine.

    :param step: optimizer step, from 0.
    :param total_steps: steps in all.
    :param warmup_steps: steps of the warm-up.
    :param final_factor: factor at the end.
    :return: a factor in (0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return final_factor + (1 - final_factor) * cosine
