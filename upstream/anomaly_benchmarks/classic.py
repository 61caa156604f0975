################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

from pathlib import Path
from typing import Any, Optional, Sequence, Tuple, Type, Union

from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from avalanche.benchmarks import NCScenario, nc_benchmark
from avalanche.benchmarks.classic.classic_benchmarks_utils import (
    check_vision_benchmark,
)
from avalanche.benchmarks.datasets.anomaly import AnomalyDataset, MVTecAD, VisA

_default_transform = Compose(
    [
        Resize((224, 224)),
        ToTensor(),
        Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def SplitMVTecAD(
    n_experiences: int,
    *,
    return_task_id: bool = False,
    seed: Optional[int] = None,
    fixed_class_order: Optional[Sequence[int]] = None,
    shuffle: bool = True,
    train_transform: Optional[Any] = _default_transform,
    eval_transform: Optional[Any] = _default_transform,
    mask_size: Optional[Tuple[int, int]] = (224, 224),
    dataset_root: Optional[Union[str, Path]] = None,
) -> NCScenario:
    """
    Creates a CL benchmark of anomaly detection using the MVTec AD dataset.

    Each experience brings some of the 15 categories. All training images are
    normal; test items are (image, category, is_anomaly, mask, task label). See
    :class:`avalanche.benchmarks.datasets.MVTecAD`; the dataset must be on the
    disk, for its publisher gives it out against a form.

    :param n_experiences: the number of experiences, a divisor of 15.
    :param return_task_id: if True, a progressive task id is returned for every
        experience. If False, all experiences will have a task ID of 0.
    :param seed: a valid int used to initialize the random number generator.
        Can be None.
    :param fixed_class_order: a list of category indices (alphabetical) used to
        define the class order. If None, ``seed`` will be used to define it.
        Defaults to None.
    :param shuffle: if True, the class order in the incremental experiences is
        randomly shuffled. Defaults to True.
    :param train_transform: applied to the training images. By default they are
        resized to 224 pixels and normalized as those of ImageNet.
    :param eval_transform: applied to the test images.
    :param mask_size: height and width of the masks. Defaults to 224 pixels.
    :param dataset_root: the root path of the dataset. Defaults to None, which
        means that the default location for 'mvtec_ad' will be used.

    :returns: a properly initialized :class:`NCScenario` instance.
    """
    return _split(
        MVTecAD,
        n_experiences,
        return_task_id,
        seed,
        fixed_class_order,
        shuffle,
        train_transform,
        eval_transform,
        mask_size,
        dataset_root,
    )


def SplitVisA(
    n_experiences: int,
    *,
    return_task_id: bool = False,
    seed: Optional[int] = None,
    fixed_class_order: Optional[Sequence[int]] = None,
    shuffle: bool = True,
    train_transform: Optional[Any] = _default_transform,
    eval_transform: Optional[Any] = _default_transform,
    mask_size: Optional[Tuple[int, int]] = (224, 224),
    dataset_root: Optional[Union[str, Path]] = None,
) -> NCScenario:
    """
    Creates a CL benchmark of anomaly detection using the VisA dataset.

    Each experience brings some of the 12 categories. All training images are
    normal; test items are (image, category, is_anomaly, mask, task label). See
    :class:`avalanche.benchmarks.datasets.VisA`; the dataset must be on the disk.

    :param n_experiences: the number of experiences, a divisor of 12.
    :param return_task_id: if True, a progressive task id is returned for every
        experience. If False, all experiences will have a task ID of 0.
    :param seed: a valid int used to initialize the random number generator.
        Can be None.
    :param fixed_class_order: a list of category indices (alphabetical) used to
        define the class order. If None, ``seed`` will be used to define it.
        Defaults to None.
    :param shuffle: if True, the class order in the incremental experiences is
        randomly shuffled. Defaults to True.
    :param train_transform: applied to the training images. By default they are
        resized to 224 pixels and normalized as those of ImageNet.
    :param eval_transform: applied to the test images.
    :param mask_size: height and width of the masks. Defaults to 224 pixels.
    :param dataset_root: the root path of the dataset. Defaults to None, which
        means that the default location for 'visa' will be used.

    :returns: a properly initialized :class:`NCScenario` instance.
    """
    return _split(
        VisA,
        n_experiences,
        return_task_id,
        seed,
        fixed_class_order,
        shuffle,
        train_transform,
        eval_transform,
        mask_size,
        dataset_root,
    )


def _split(
    dataset: Type[AnomalyDataset],
    n_experiences: int,
    return_task_id: bool,
    seed: Optional[int],
    fixed_class_order: Optional[Sequence[int]],
    shuffle: bool,
    train_transform: Optional[Any],
    eval_transform: Optional[Any],
    mask_size: Optional[Tuple[int, int]],
    dataset_root: Optional[Union[str, Path]],
) -> NCScenario:
    return nc_benchmark(
        train_dataset=dataset(dataset_root, train=True),
        test_dataset=dataset(dataset_root, train=False, mask_size=mask_size),
        n_experiences=n_experiences,
        task_labels=return_task_id,
        seed=seed,
        fixed_class_order=fixed_class_order,
        shuffle=shuffle,
        train_transform=train_transform,
        eval_transform=eval_transform,
    )


__all__ = ["SplitMVTecAD", "SplitVisA"]

if __name__ == "__main__":
    check_vision_benchmark(SplitMVTecAD(5))
