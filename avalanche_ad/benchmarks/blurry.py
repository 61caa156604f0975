"""Blurry task boundaries: when each training image of a category arrives."""

from __future__ import annotations

import random

from avalanche_ad.errors import DatasetError

__all__ = ["arrival_tasks", "check_blurry"]


def arrival_tasks(
    images: int, home: int, tasks: int, share: float, seed: str
) -> list[int]:
    """Return the task in which each training image of a category arrives.

    ``round(share · images)`` of them, drawn without replacement, arrive in another task
    than the category's own: as many in each of the others, or one more in some that
    are drawn too. At least one image stays at home.

    Blurry boundaries are from Bang et al., Rainbow Memory, CVPR 2021
    (arXiv 2103.17230), where tasks share their classes but most of a class comes in
    one task.

    :param images: number of the category's training images.
    :param home: index of the category's own task.
    :param tasks: number of tasks.
    :param share: share that arrives elsewhere, 0 to below 1.
    :param seed: decides which images and which tasks; its own for every category.
    :return: a task per image.
    """
    arrival = [home] * images
    others = [task for task in range(tasks) if task != home]
    away = min(round(share * images), images - 1)
    generator = random.Random(seed)
    generator.shuffle(others)
    for turn, image in enumerate(generator.sample(range(images), away)):
        arrival[image] = others[turn % len(others)]
    return arrival


def check_blurry(share: float, tasks: int) -> None:
    """Refuse a share that is none, and a stream without another task.

    :param share: share of a category's training images that arrives elsewhere.
    :param tasks: number of tasks.
    :raises DatasetError: when they do not fit.
    """
    if not 0 <= share < 1:
        raise DatasetError(
            f"blurry: expected a share from 0 to below 1, got {share:g}: 0.1 sends a "
            "tenth of each category's training images to other experiences"
        )
    if share and tasks < 2:
        raise DatasetError(
            f"blurry = {share:g} needs at least 2 experiences, got {tasks}: leave it "
            "out, or split the categories into more"
        )
