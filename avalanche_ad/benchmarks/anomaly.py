"""Class-incremental anomaly streams from any data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from avalanche.benchmarks import CLScenario, benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import ExperienceAttribute
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import (
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.flat_data import ConstantSequence

from avalanche_ad.benchmarks.blurry import arrival_tasks, check_blurry
from avalanche_ad.benchmarks.items import (
    FeatureSource,
    ImageSource,
    PackedMasks,
    TestItems,
    TrainItems,
)
from avalanche_ad.benchmarks.order import split_categories
from avalanche_ad.benchmarks.painted import painted_items
from avalanche_ad.benchmarks.regions import PackedRegions
from avalanche_ad.datasets.digest import category_digests
from avalanche_ad.datasets.loading import image_size as image_size_of
from avalanche_ad.datasets.masks import resize_mask
from avalanche_ad.datasets.notes import Remarks, mask_and_remarks, tell
from avalanche_ad.datasets.painted import PaintedDefects
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.datasets.validation import mask_of_another_size, verify
from avalanche_ad.errors import DatasetError
from avalanche_ad.features import Backbone, FeatureCache, FeatureLayout

__all__ = ["AnomalyBenchmark", "anomaly_benchmark"]

Progress = Callable[[str, int, int], None]


class AnomalyBenchmark(CLScenario):  # type: ignore[misc]
    """An Avalanche benchmark of anomaly experiences.

    Train items are (x, y, t), test items (x, y, is_anomaly, mask, t): x
    features (size,) or an image (3, S, S), y the category's index in
    ``category_names``, mask (M, M) boolean, t the task label. Where the stream has
    anomalous images whose masks are not known, all masks are of unsigned bytes, and
    those are 255 (``UNKNOWN``) in every pixel, see :class:`PackedMasks`. Every test
    experience holds the categories of the train experience with the same index, and
    no image where there is none to test on; where the stream is blurry, a train
    experience holds images of other categories too. The data attributes
    ``category_name``, ``defect_type`` and ``path`` ride along outside the items.

    :param streams: Avalanche streams ``train`` and ``test``.
    :param experiences: names of the categories of each experience; in a blurry stream,
        of those that are at home there.
    :param layout: shapes of the features, ``None`` for an image stream.
    :param image_size: edge of the images in pixels.
    :param mask_size: edge of the masks in pixels.
    :param digests: of each category's images and masks, see
        :func:`~avalanche_ad.datasets.category_digests`.
    :param learned: how many of the first experiences were learned elsewhere and hold
        no image.
    :param training_images: fingerprints of each category's training images.
    :param regions: defects of the test images, by path, if the data set knows them.
    :param painted: of each train experience the items of its images with painted
        defects, as test items; they are its attribute ``painted``.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> counts = {"train_images": 2, "test_normals": 1, "test_anomalies": 1}
    >>> data = SyntheticAD(64, categories=["bolt", "gear"], **counts)
    >>> benchmark = anomaly_benchmark(data, n_experiences=2, image_size=64)
    >>> benchmark.category_names
    ('bolt', 'gear')
    >>> x, y, is_anomaly, mask, t = benchmark.test_stream[1].dataset[0]
    >>> x.shape, y, mask.shape, t
    (torch.Size([3, 64, 64]), 1, torch.Size([64, 64]), 0)
    """

    def __init__(
        self,
        streams: Sequence[Any],
        experiences: Sequence[Sequence[str]],
        layout: FeatureLayout | None,
        image_size: int,
        mask_size: int,
        digests: Mapping[str, str] | None = None,
        learned: int = 0,
        training_images: Mapping[str, Sequence[str]] | None = None,
        regions: PackedRegions | None = None,
        painted: Sequence[Any] = (),
    ) -> None:
        super().__init__(list(streams))
        self.experiences = tuple(tuple(names) for names in experiences)
        self.layout = layout
        self.image_size = image_size
        self.mask_size = mask_size
        self.learned = learned
        self.regions = regions
        self.training_images = {
            name: list(images) for name, images in (training_images or {}).items()
        }
        self.digests = dict(digests or {})
        for stream in self.streams.values():
            stream.benchmark = self
            for experience in stream:
                # for metrics alone, as Avalanche hides the rest of a stream in training
                experience.benchmark = ExperienceAttribute(self)
        for experience, items in zip(self.train_stream, painted, strict=False):
            experience.painted = ExperienceAttribute(items, use_in_train=True)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the categories in order of arrival; target y is the index."""
        return tuple(name for names in self.experiences for name in names)

    @property
    def n_classes(self) -> int:
        """How many categories the stream has."""
        return len(self.category_names)

    @property
    def n_classes_per_exp(self) -> list[int]:
        """How many categories are at home in each experience."""
        return [len(names) for names in self.experiences]

    @property
    def classes_order(self) -> list[int]:
        """Targets of the categories in order of arrival, by which they are counted."""
        return list(range(self.n_classes))

    @property
    def classes_in_experience(self) -> dict[str, list[set[int]]]:
        """The categories of each experience by the name of the stream."""
        return {
            name: [set(experience.classes_in_this_experience) for experience in stream]
            for name, stream in self.streams.items()
        }


def anomaly_benchmark(
    data: AnomalyData,
    *,
    n_experiences: int | None = None,
    classes_per_experience: int | Sequence[int] | None = None,
    experiences: Sequence[Sequence[str]] | None = None,
    class_order: Sequence[str] | None = None,
    seed: int | None = None,
    blurry: float = 0.0,
    blurry_seed: int = 0,
    return_task_id: bool = False,
    image_size: int = 256,
    mask_size: int | None = None,
    backbone: Backbone | None = None,
    cache: FeatureCache | None = None,
    feature_dtype: Literal["float16", "float32"] = "float16",
    device: str = "cpu",
    progress: Progress | None = None,
    learned: Sequence[Sequence[str]] = (),
    painted: bool = False,
) -> AnomalyBenchmark:
    """Turn a data set into a class-incremental stream of anomaly experiences.

    With a ``backbone`` it is a feature stream: every image goes through the backbone
    once, into the cache, and never again. Without, it is an image stream, for a model
    with a backbone attached; both give the same scores.

    All masks are loaded here, and every image of an image stream is decoded once, so
    that no file can break training. What the reader passed over and what is odd about
    files is logged as a warning, one line for each kind.

    :param data: the data set.
    :param n_experiences: see :func:`split_categories`, as the four that follow.
    :param classes_per_experience: categories per experience.
    :param experiences: category names per experience.
    :param class_order: names in order of arrival.
    :param seed: shuffle the order of arrival by this seed.
    :param blurry: share of each category's training images that arrives in another
        experience, see :func:`arrival_tasks`; test images never do.
    :param blurry_seed: decides which images, and where they arrive.
    :param return_task_id: give every experience its own task label instead of 0.
    :param image_size: edge of the images in pixels.
    :param mask_size: edge of the masks in pixels, ``image_size`` by default.
    :param backbone: frozen backbone of a feature stream.
    :param cache: where features are kept, the user's cache folder by default.
    :param feature_dtype: ``"float16"`` or ``"float32"`` on disk.
    :param device: where the backbone runs.
    :param progress: called with (what, done, all) while features are computed.
    :param learned: names of the categories that a model has learned before, by
        experience, where the stream goes on with new ones: theirs are the first
        targets and the first experiences, which hold no image.
    :param painted: give train experiences their images with painted defects too, see
        :class:`~avalanche_ad.datasets.painted.PaintedDefects`: the backbone runs
        once more for each.
    :raises DatasetError: when names or sizes do not fit, or a file cannot be read.
    """
    split = split_categories(
        data.categories,
        n_experiences=n_experiences,
        classes_per_experience=classes_per_experience,
        experiences=experiences,
        class_order=class_order,
        seed=seed,
    )
    check_blurry(blurry, len(split))
    mask_size = mask_size or image_size
    names = [name for experience in split for name in experience]
    before = [name for experience in learned for name in experience]
    if again := sorted({*names} & {*before}):
        raise DatasetError(
            f"category {again[0]!r} was learned before: expected a stream of new "
            f"categories alone, or without learned={[list(one) for one in learned]}"
        )
    index_of = {name: index for index, name in enumerate([*before, *names])}
    by_category: dict[str, list[Sample]] = {name: [] for name in names}
    for sample in data.samples:
        if sample.category in by_category:
            by_category[sample.category].append(sample)
    for name, samples in by_category.items():
        if not any(sample.split == "train" for sample in samples):
            raise DatasetError(f"category {name!r} of {data.name} has no train image")

    if backbone is None:
        verify(data, _about(progress, "checking images"))

    # every file is read once: the cache and the digests go by the same
    fingerprints = {
        sample: data.fingerprint(sample)
        for samples in by_category.values()
        for sample in samples
    }
    rows: dict[Sample, tuple[Any, int]] = {}
    layout: FeatureLayout | None = None
    defects = PaintedDefects(data) if painted else None
    if backbone is not None:
        cache = cache or FeatureCache()
        extract = partial(
            cache.features,
            backbone,
            image_size=image_size,
            dtype=feature_dtype,
            device=device,
        )
        for name, samples in by_category.items():
            features = extract(
                data,
                samples,
                progress=_about(progress, f"features of {name}"),
                fingerprints=[fingerprints[sample] for sample in samples],
            )
            rows.update((sample, (features, row)) for row, sample in enumerate(samples))
            layout = features.layout
            if defects is None:
                continue
            normals = [sample for sample in samples if sample.split == "train"]
            own = [defects.sample_of(sample) for sample in normals]
            features = extract(
                defects,
                own,
                progress=_about(progress, f"features of {name} with painted defects"),
                fingerprints=[
                    defects.fingerprint_from(sample, fingerprints[normal])
                    for sample, normal in zip(own, normals, strict=True)
                ],
            )
            rows.update((sample, (features, row)) for row, sample in enumerate(own))

    def source(
        samples: Sequence[Sample], of: AnomalyData
    ) -> FeatureSource | ImageSource:
        if backbone is None:
            return ImageSource(of, samples, image_size)
        return FeatureSource([rows[sample] for sample in samples])

    arriving: list[list[Sample]] = [[] for _ in split]
    for home, experience in enumerate(split):
        for name in experience:
            own = [sample for sample in by_category[name] if sample.split == "train"]
            tasks = arrival_tasks(
                len(own), home, len(split), blurry, f"{blurry_seed}/{name}"
            )
            for sample, task in zip(own, tasks, strict=True):
                arriving[task].append(sample)

    remarks = Remarks()
    train, test, packed = [], [], []
    # of what was learned before there is nothing: its experiences keep their numbers
    whole = [*([] for _ in learned), *split]
    arriving = [*([] for _ in learned), *arriving]
    for task, experience in enumerate(whole):
        label = task if return_task_id else 0
        brought = arriving[task]
        targets = [index_of[sample.category] for sample in brought]
        train.append(
            _dataset(
                TrainItems(source(brought, data), targets), brought, targets, label
            )
        )
        members = [sample for name in experience for sample in by_category[name]]
        tested = [sample for sample in members if sample.split == "test"]
        targets = [index_of[sample.category] for sample in tested]
        masks = PackedMasks(
            [_mask(data, sample, mask_size, remarks) for sample in tested],
            (mask_size, mask_size),
        )
        packed.append(masks)
        anomalous = [sample.is_anomaly for sample in tested]
        items = TestItems(source(tested, data), targets, anomalous, masks)
        test.append(_dataset(items, tested, targets, label))
    if remarks.unmasked:
        for masks in packed:  # of one type, for loaders of several experiences
            masks.dtype = torch.uint8

    tell(data, [sample for own in by_category.values() for sample in own], remarks)
    scenario = with_task_labels(
        with_classes_timeline(benchmark_from_datasets(train=train, test=test))
    )
    return AnomalyBenchmark(
        list(scenario.streams.values()),
        [*learned, *split],
        layout,
        image_size,
        mask_size,
        category_digests(data, names, fingerprints),
        len(learned),
        {
            name: [
                fingerprints[sample]
                for sample in by_category[name]
                if sample.split == "train"
            ]
            for name in names
        },
        PackedRegions(
            data,
            (s for own in by_category.values() for s in own if s.split == "test"),
            mask_size,
        ),
        painted_items(defects, arriving, index_of, mask_size, source)
        if defects is not None
        else (),
    )


def _mask(
    data: AnomalyData, sample: Sample, size: int, remarks: Remarks
) -> npt.NDArray[np.bool_] | None:
    """Return an image's mask at mask size; a normal image's is not looked for."""
    if not sample.is_anomaly:
        return np.zeros((size, size), dtype=np.bool_)
    mask, found = mask_and_remarks(data, sample)
    for remark in found:
        where = next(iter(sample.mask_paths), sample.path)
        remarks.add("mask", sample.category, [where], remark)
    if mask is None:
        remarks.unmasked.add(sample)
        return None
    expected = image_size_of(sample.path) if sample.path.is_file() else mask.shape
    if mask.shape != expected:
        raise DatasetError(str(mask_of_another_size(sample, mask.shape, expected)))
    return resize_mask(mask, size)


def _dataset(
    items: TrainItems | TestItems,
    samples: Sequence[Sample],
    targets: Sequence[int],
    task_label: int,
) -> TaskAwareSupervisedClassificationDataset[Any]:
    return TaskAwareSupervisedClassificationDataset(
        [items],
        data_attributes=[
            DataAttribute(list(targets), "targets"),
            DataAttribute(
                # an empty one of Avalanche's breaks its own task labels
                ConstantSequence(task_label, len(samples)) if samples else [],
                "targets_task_labels",
                use_in_getitem=True,
            ),
            DataAttribute([sample.category for sample in samples], "category_name"),
            DataAttribute([sample.defect_type for sample in samples], "defect_type"),
            DataAttribute([str(sample.path) for sample in samples], "path"),
        ],
    )


def _about(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(what, done, total)

    return report
