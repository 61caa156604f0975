"""Ready-made streams of the field's data sets, like Avalanche's classics."""

from __future__ import annotations

import inspect
from typing import Any

from avalanche_ad.benchmarks.anomaly import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.datasets import DATASETS, open_dataset
from avalanche_ad.datasets.roots import Roots
from avalanche_ad.datasets.synthetic import SyntheticAD

__all__ = [
    "SplitBTAD",
    "SplitCSV",
    "SplitFolder",
    "SplitMPDD",
    "SplitMVTec3D",
    "SplitMVTecAD",
    "SplitMVTecAD2",
    "SplitMVTecLOCO",
    "SplitRealIAD",
    "SplitSyntheticAD",
    "SplitVisA",
]


def _split(
    name: str, root: Roots, n_experiences: int | None, options: dict[str, Any]
) -> AnomalyBenchmark:
    """Open a data set and split it; no categories but those named need be on disk."""
    parameters = inspect.signature(DATASETS.find(name)).parameters
    taken = set(parameters) - {"root", "categories"}
    own = {key: value for key, value in options.items() if key in taken}
    rest = {key: value for key, value in options.items() if key not in taken}
    named = [name for names in rest.get("experiences") or () for name in names]
    chosen = rest.get("class_order") or named or None
    data = open_dataset(name, root, chosen, **own)
    return anomaly_benchmark(data, n_experiences=n_experiences, **rest)


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
    return _split("mvtec_ad", dataset_root, n_experiences, options)


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
    return _split("visa", dataset_root, n_experiences, options)


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
    return _split("btad", dataset_root, n_experiences, options)


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
    return _split("mvtec_3d", dataset_root, n_experiences, options)


def SplitMVTecLOCO(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split MVTec LOCO AD's 5 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with the 5 category folders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return _split("mvtec_loco", dataset_root, n_experiences, options)


def SplitMVTecAD2(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split MVTec AD 2's 8 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with the 8 category folders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return _split("mvtec_ad_2", dataset_root, n_experiences, options)


def SplitMPDD(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    **options: Any,
) -> AnomalyBenchmark:
    """Split MPDD's 6 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with the 6 category folders.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    return _split("mpdd", dataset_root, n_experiences, options)


def SplitRealIAD(  # noqa: N802
    n_experiences: int | None = None,
    *,
    dataset_root: Roots,
    images: str = "realiad_256",
    tables: str = "realiad_jsons",
    **options: Any,
) -> AnomalyBenchmark:
    """Split Real-IAD's 30 categories into experiences.

    :param n_experiences: see :func:`SplitMVTecAD`.
    :param dataset_root: the folder with ``realiad_jsons`` and the images' folder.
    :param images: folder of the images, which says their size.
    :param tables: folder of the tables, ``"realiad_jsons_sv"`` for one side alone.
    :param options: what :func:`anomaly_benchmark` takes.
    """
    given = {"images": images, "tables": tables, **options}
    return _split("real_iad", dataset_root, n_experiences, given)


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
    return _split("folder", dataset_root, n_experiences, options)


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
    return _split("csv", dataset_root, n_experiences, options)


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
