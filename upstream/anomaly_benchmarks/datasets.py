################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
Datasets of industrial anomaly detection: MVTec AD and VisA. Training images are
all normal, test images come with a label and a mask of their defects.
"""

import csv
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

import dill
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from avalanche.benchmarks.datasets.anomaly.categories import (
    MVTEC_AD_CATEGORIES,
    VISA_CATEGORIES,
)
from avalanche.benchmarks.datasets.dataset_utils import default_dataset_location
from avalanche.checkpointing import constructor_based_serialization

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


class AnomalySample(NamedTuple):
    """
    An image of a category, and the mask of its defects, None if it is normal.
    """

    path: Path
    category: int
    mask: Optional[Path]


class AnomalyDataset(Dataset):
    """
    Base class of the datasets of anomaly detection.

    Training items are (image, category), test items (image, category,
    is_anomaly, mask): 1 if the image has a defect, and a tensor (H, W) that is 1
    on its defects and 0 elsewhere. To an Avalanche strategy the category is the
    class.
    """

    categories: Sequence[str] = ()
    folder = ""
    how_to_get = ""

    def __init__(
        self,
        root: Optional[Union[str, Path]] = None,
        *,
        train: bool = True,
        transform: Optional[Callable[[Any], Any]] = None,
        mask_size: Optional[Tuple[int, int]] = None,
        loader: Callable[[Any], Any] = default_loader,
    ):
        """
        Creates an instance of the dataset, which must be on the disk.

        :param root: the folder of the category folders. Defaults to None, which
            means that the default location for the dataset will be used.
        :param train: whether to read the training images or the test images.
        :param transform: applied to images.
        :param mask_size: height and width of masks, by the nearest pixel.
            Defaults to None, which leaves them as large as they are.
        :param loader: reads an image file.
        """
        super().__init__()
        self.root = Path(root or default_dataset_location(self.folder))
        self.train = train
        self.transform = transform
        self.mask_size = mask_size
        self.loader = loader
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root} not found. {self.how_to_get}")
        self.samples = self._samples()
        self.targets = [sample.category for sample in self.samples]

    def _samples(self) -> List[AnomalySample]:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tuple[Any, ...]:
        sample = self.samples[index]
        image = self.loader(str(sample.path))
        size = self.mask_size or (image.height, image.width)
        if self.transform is not None:
            image = self.transform(image)
        if self.train:
            return image, sample.category
        mask = torch.zeros(size)
        if sample.mask is not None:
            with Image.open(sample.mask) as file:
                found = F.pil_to_tensor(file.convert("L")) > 0
            mask = F.resize(found, list(size), InterpolationMode.NEAREST)[0].float()
        return image, sample.category, int(sample.mask is not None), mask


class MVTecAD(AnomalyDataset):
    """
    MVTec AD: 15 categories of textures and objects.

    Bergmann et al., MVTec AD: A Comprehensive Real-World Dataset for
    Unsupervised Anomaly Detection, CVPR 2019. Licence: CC BY-NC-SA 4.0; it is
    given out by its publisher alone, against a form.
    """

    categories = MVTEC_AD_CATEGORIES
    folder = "mvtec_ad"
    how_to_get = (
        "MVTec AD (CC BY-NC-SA 4.0, not for commercial use) cannot be downloaded "
        "automatically: get it at "
        "https://www.mvtec.com/company/research/datasets/mvtec-ad and extract it "
        "there, so that the folder holds one folder for each category, such as "
        "bottle."
    )

    def _samples(self) -> List[AnomalySample]:
        found = []
        for index, category in enumerate(self.categories):
            folder = self.root / category / ("train" if self.train else "test")
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder} not found. {self.how_to_get}")
            for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
                for path in _images(kind):
                    mask = None
                    if kind.name != "good":
                        mask = (
                            self.root
                            / category
                            / "ground_truth"
                            / kind.name
                            / f"{path.stem}_mask.png"
                        )
                    found.append(AnomalySample(path, index, mask))
        return found


class VisA(AnomalyDataset):
    """
    VisA: 12 categories, by the official table of one class at a time,
    ``split_csv/1cls.csv``.

    Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly
    Detection and Segmentation, ECCV 2022. Licence: CC BY 4.0.
    """

    categories = VISA_CATEGORIES
    folder = "visa"
    how_to_get = (
        "Get VisA (CC BY 4.0) by the link at "
        "https://github.com/amazon-science/spot-diff and extract it there, so that "
        "the folder holds split_csv and one folder for each category, such as "
        "candle."
    )

    def _samples(self) -> List[AnomalySample]:
        table = self.root / "split_csv" / "1cls.csv"
        if not table.is_file():
            raise FileNotFoundError(f"{table} not found. {self.how_to_get}")
        found = []
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (row["split"] == "train") == self.train:
                    category = self.categories.index(row["object"])
                    mask = self.root / row["mask"] if row["mask"] else None
                    sample = AnomalySample(self.root / row["image"], category, mask)
                    found.append(sample)
        return sorted(found, key=lambda sample: sample.category)


def _images(folder: Path) -> List[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)


def _checkpoint(pickler: Any, obj: AnomalyDataset) -> None:
    constructor_based_serialization(
        pickler,
        obj,
        type(obj),
        deduplicate=True,
        kwargs=dict(
            root=obj.root,
            train=obj.train,
            transform=obj.transform,
            mask_size=obj.mask_size,
            loader=obj.loader,
        ),
    )


for _dataset in (MVTecAD, VisA):
    dill.register(_dataset)(_checkpoint)


__all__ = [
    "AnomalyDataset",
    "AnomalySample",
    "MVTEC_AD_CATEGORIES",
    "MVTecAD",
    "VISA_CATEGORIES",
    "VisA",
]
