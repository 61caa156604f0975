import os
import tempfile
import unittest

import torch
from PIL import Image

from avalanche.benchmarks.classic import SplitMVTecAD, SplitVisA
from avalanche.benchmarks.datasets.anomaly import (
    MVTEC_AD_CATEGORIES,
    VISA_CATEGORIES,
    MVTecAD,
    VisA,
)


def draw(*parts, color=0, mode="RGB", spot=None):
    """Write an image of 8x6 pixels, a pixel of another color if asked for."""
    path = os.path.join(*parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    image = Image.new(mode, (8, 6), color)
    if spot is not None:
        image.putpixel((1, 2), spot)
    image.save(path)


def make_mvtec_ad(root):
    for index, category in enumerate(MVTEC_AD_CATEGORIES):
        for number in range(3):
            draw(root, category, "train", "good", f"{number}.png", color=(index, 0, 0))
        draw(root, category, "test", "good", "0.png", color=(index, 0, 0))
        draw(root, category, "test", "crack", "0.png", color=(index, 9, 9))
        draw(root, category, "ground_truth", "crack", "0_mask.png", mode="L", spot=255)


def make_visa(root):
    rows = ["object,split,label,image,mask"]
    for index, category in enumerate(VISA_CATEGORIES):
        for split, label, name in (
            ("train", "normal", "0.png"),
            ("test", "normal", "1.png"),
            ("test", "anomaly", "2.png"),
        ):
            image, mask = f"{category}/Data/Images/{name}", ""
            draw(root, *image.split("/"), color=(index, 0, 0))
            if label == "anomaly":
                mask = f"{category}/Data/Masks/{name}"
                draw(root, *mask.split("/"), mode="L", spot=3)
            rows.append(f"{category},{split},{label},{image},{mask}")
    os.makedirs(os.path.join(root, "split_csv"))
    with open(os.path.join(root, "split_csv", "1cls.csv"), "w") as file:
        file.write("\n".join(rows))


class AnomalyBenchmarkTests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def check_stream(self, benchmark, per_experience, train, test):
        seen = []
        for experience in benchmark.train_stream:
            classes = experience.classes_in_this_experience
            self.assertEqual(len(classes), per_experience)
            seen += classes
            self.assertEqual(len(experience.dataset), per_experience * train)
            x, y, task = experience.dataset[0]
            self.assertEqual(tuple(x.shape), (3, 224, 224))
            self.assertIn(y, classes)
        self.assertEqual(sorted(seen), list(range(benchmark.n_classes)))
        for trained, tested in zip(benchmark.train_stream, benchmark.test_stream):
            self.assertEqual(
                sorted(trained.classes_in_this_experience),
                sorted(tested.classes_in_this_experience),
            )
            self.assertEqual(len(tested.dataset), per_experience * test)
            labels = []
            for x, y, is_anomaly, mask, task in tested.dataset:
                self.assertEqual(tuple(x.shape), (3, 224, 224))
                self.assertEqual(tuple(mask.shape), (224, 224))
                self.assertEqual(is_anomaly, int(mask.any()))
                labels.append(is_anomaly)
            self.assertEqual(sum(labels), per_experience)

    def test_mvtec_ad_arrives_by_categories(self):
        make_mvtec_ad(self.root)
        benchmark = SplitMVTecAD(5, seed=1, dataset_root=self.root)
        self.check_stream(benchmark, 3, train=3, test=2)

    def test_visa_arrives_by_categories(self):
        make_visa(self.root)
        benchmark = SplitVisA(4, seed=1, dataset_root=self.root)
        self.check_stream(benchmark, 3, train=1, test=2)

    def test_order_task_ids_and_transforms_are_those_given(self):
        make_mvtec_ad(self.root)
        order = list(reversed(range(15)))
        benchmark = SplitMVTecAD(
            15,
            fixed_class_order=order,
            return_task_id=True,
            train_transform=lambda image: torch.tensor(image.getpixel((0, 0))[0]),
            dataset_root=self.root,
        )
        for task, experience in enumerate(benchmark.train_stream):
            x, y, t = experience.dataset[0]
            self.assertEqual((int(x), y, t), (14 - task, 14 - task, task))

    def test_masks_are_one_on_defects(self):
        make_mvtec_ad(self.root)
        image, category, is_anomaly, mask = MVTecAD(self.root, train=False)[0]
        self.assertEqual((category, is_anomaly), (0, 1))  # crack before good
        expected = torch.zeros(6, 8)
        expected[2, 1] = 1
        self.assertTrue(torch.equal(mask, expected))
        large = MVTecAD(self.root, train=False, mask_size=(12, 16))[0][3]
        self.assertEqual(int(large.sum()), 4)

    def test_masks_of_visa_count_every_value(self):
        make_visa(self.root)
        masks = [item[3] for item in VisA(self.root, train=False)]
        self.assertEqual(sum(int(mask.sum()) for mask in masks), 12)

    def test_what_is_missing_says_how_to_get_it(self):
        with self.assertRaisesRegex(FileNotFoundError, "CC BY-NC-SA"):
            MVTecAD(os.path.join(self.root, "nowhere"))
        with self.assertRaisesRegex(FileNotFoundError, "bottle"):
            MVTecAD(self.root)
        with self.assertRaisesRegex(FileNotFoundError, "1cls.csv"):
            VisA(self.root)


if __name__ == "__main__":
    unittest.main()
