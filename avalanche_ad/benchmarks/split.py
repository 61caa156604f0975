"""Ready-made streams of the field's data sets, like Avalanche's classics."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from avalanche_ad.benchmarks.anomaly import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.datasets import DATASETS, open_dataset
from avalanche_ad.datasets.roots import Roots
from avalanche_ad.datasets.synthetic import SyntheticAD

__all__ = [
    "SplitBTAD",
    "SplitCSV",
    "SplitFolder",
    "SplitMVTec3D",
    "SplitMVTecAD",
    "SplitSyntheticAD",
    "SplitVisA",
]


def _selection(options: dict[str, Any]) -> Sequence[str] | None:
    """Return the categories a stream names, so that no others need be on disk."""
    named = [name for names in options.get("experiences") or () for name in names]
    return options.get("class_order") or named or None


def SplitMVTecAD(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split MVTec AD's 15 categories into experiences.

    :param n_experiences: number of experiences; or give ``classes_per_experience`` or
        ``experiences``.
    :param dataset_root: the folder with the 15 category folders, or several that
        have some each, as in all of these builders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return anomaly_benchmark(
        open_dataset("mvtec_ad", dataset_root, _selection(options)),
        n_experiences=n_experiences,
        **options,
    )


def SplitVisA(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split VisA's 12 categories into experiences, by the official ``1cls.csv``.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with ``split_csv`` and the category folders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return anomaly_benchmark(
        open_dataset("visa", dataset_root, _selection(options)),
        n_experiences=n_experiences,
        **options,
    )


def SplitBTAD(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split BTAD's 3 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with ``01``, ``02`` and ``03``.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return anomaly_benchmark(
        open_dataset("btad", dataset_root, _selection(options)),
        n_experiences=n_experiences,
        **options,
    )


def SplitMVTec3D(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split the RGB images of MVTec 3D-AD's 10 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with the 10 category folders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return anomaly_benchmark(
        open_dataset("mvtec_3d", dataset_root, _selection(options)),
        n_experiences=n_experiences,
        **options,
    )


def SplitFolder(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split any folder with one folder per category into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with one folder per category.
    :param options: what :func:`anomaly_benchmark` takes, and the names of folders, see
        :class:`~avalanche_ad.datasets.readers.folder.FolderReader`.
    """
    return _split("folder", n_experiences, dataset_root, options)


def SplitCSV(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split the images that a table names into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with the table.
    :param options: what :func:`anomaly_benchmark` takes, and the table's name, see
        :class:`~avalanche_ad.datasets.readers.csv.CSVReader`.
    """
    return _split("csv", n_experiences, dataset_root, options)


def _split(
    name: str, n_experiences: int | None, root: Roots, options: dict[str, Any]
) -> AnomalyBenchmark:
    """Split a data set whose reader has options of its own."""
    taken = inspect.signature(DATASETS.find(name)).parameters
    own = {key: value for key, value in options.items() if key in taken}
    rest = {key: value for key, value in options.items() if key not in taken}
    data = open_dataset(name, root, _selection(rest), **own)
    return anomaly_benchmark(data, n_experiences=n_experiences, **rest)


def SplitSyntheticAD(  # noqa: N802
    n_experiences: int | None = None,
    *,
    image_size: int = 128,
    data_seed: int = 0,
    **options: Any,
) -> AnomalyBenchmark:
    """Split the procedural data set's 15 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param image_size: edge of the images in pixels.
    :param data_seed: what the images are drawn from.
    :param options: what :func:`anomaly_benchmark` takes.

    >>> stream = SplitSyntheticAD(3, image_size=32)  # doctest: +SKIP
    """
    return anomaly_benchmark(
        SyntheticAD(size=image_size, seed=data_seed),
        n_experiences=n_experiences,
        image_size=image_size,
        **options,
    )
