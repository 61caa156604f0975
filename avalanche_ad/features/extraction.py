"""From the images of a data set to features, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.datasets.loading import resize_image
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.errors import CacheError
from avalanche_ad.features.backbone import Backbone

__all__ = ["Progress", "feature_batches", "load_images"]

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""


def load_images(
    data: AnomalyData, samples: Sequence[Sample], image_size: int
) -> Tensor:
    """Return images as the backbones take them.

    :param data: where the images come from.
    :param samples: which images.
    :param image_size: side in pixels that they are resized to.
    :return: (N, 3, image_size, image_size), float32 in [0, 1].
    """
    images = [resize_image(data.image(sample), image_size) for sample in samples]
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def feature_batches(
    backbone: Backbone,
    data: AnomalyData,
    samples: Sequence[Sample],
    image_size: int,
    dtype: str,
    device: torch.device | str,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[npt.NDArray[np.floating[Any]]]:
    """Yield features, one array (n, layout.size) per batch, in order.

    Images are loaded and computed in as many threads as torch would use, each with one
    of its own: nothing waits for a thread that is behind, as torch's own pieces of one
    batch do. An accelerator computes in one while the next images load.
    """
    backbone.to(device)
    layout, kept = backbone.layout(image_size), getattr(torch, dtype)
    threads = torch.get_num_threads()
    workers = threads if torch.device(device).type == "cpu" else 2
    starts = range(0, len(samples), batch_size)

    def computed(start: int) -> Tensor:
        images = load_images(data, samples[start : start + batch_size], image_size)
        return layout.flatten(backbone(images.to(device))).cpu().to(kept)

    done = 0
    try:
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            for start, features in _in_order(pool, computed, starts, 2 * workers):
                chosen = samples[start : start + batch_size]
                finite = features.isfinite().all(dim=1)
                if not finite.all():
                    bad = chosen[int((~finite).nonzero()[0])]
                    mend = "; keep them as float32" if dtype == "float16" else ""
                    raise CacheError(
                        f"features of {bad.path} from {backbone.name} are not finite "
                        f"in {dtype}{mend}"
                    )
                done += len(chosen)
                if progress is not None:
                    progress(done, len(samples))
                yield features.numpy()
    finally:
        torch.set_num_threads(threads)  # threads still to come take the last number set


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[int], Tensor],
    items: Sequence[int],
    ahead: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yield items with what a pool makes of them, so many ahead of what is taken."""
    coming = deque((item, pool.submit(work, item)) for item in items[:ahead])
    try:
        for number in range(len(items)):
            item, future = coming.popleft()
            result = future.result()
            if number + ahead < len(items):
                following = items[number + ahead]
                coming.append((following, pool.submit(work, following)))
            yield item, result
    finally:
        for _, future in coming:
            future.cancel()
