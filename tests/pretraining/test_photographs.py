import tarfile

import pytest
import torch
from PIL import Image

from avalanche_ad.errors import DatasetError
from pretraining.photographs import (
    HELD_OUT,
    is_held_out,
    read_photographs,
)


def test_a_tar_archive_and_a_folder_are_the_same(folder, archive):
    first, second = read_photographs(folder, 20), read_photographs(archive, 20)
    assert first.classes == second.classes == ("dots", "stripes", "waves")
    assert first.labels.tolist() == [0] * 30 + [1] * 30 + [2] * 30
    for name in ("images", "labels", "held_out"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_images_are_the_middle_square_at_the_size_asked_for(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image = Image.new("L", (40, 20), 10)
        image.paste(200, (10, 0, 30, 20))
        image.save(tmp_path / name / "wide.png")
    found = read_photographs(tmp_path, 20)
    assert found.images.shape == (2, 3, 20, 20)
    assert (found.images == 200).all()
    assert read_photographs(tmp_path, 8).images.shape == (2, 3, 8, 8)


def test_every_photograph_is_in_one_part_and_its_name_alone_decides(folder):
    found = read_photographs(folder, 20)
    parts = [found.select(held_out) for held_out in (False, True)]
    assert sum(len(images) for images, _ in parts) == len(found.images)
    assert found.held_out.tolist() == [
        is_held_out(name)
        for name in sorted(
            f"{kind}/{number}.png" for kind in found.classes for number in range(30)
        )
    ]
    share = sum(is_held_out(f"x/{number}") for number in range(30_000)) / 30_000
    assert share == pytest.approx(1 / HELD_OUT, rel=0.15)


def one_class(root):
    (root / "only").mkdir()
    Image.new("RGB", (8, 8)).save(root / "only" / "a.png")
    return root


def damaged_image(root):
    one_class(root)
    (root / "second").mkdir()
    (root / "second" / "b.png").write_bytes(b"no image")
    return root


def cut_archive(root):
    path = root / "cut.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(one_class(root) / "only" / "a.png", "only/a.png")
    path.write_bytes(path.read_bytes()[:600])
    return path


def no_archive(root):
    path = root / "text.tar"
    path.write_text("no archive")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "absent", "does not exist"),
        (lambda root: root, "has no photographs; expected CLASS/NAME"),
        (one_class, "one class only .only."),
        (damaged_image, "second/b.png is damaged"),
        (cut_archive, "is no whole tar archive"),
        (no_archive, "is no whole tar archive"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, make, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_photographs(make(tmp_path), 16)
    assert "\n" not in str(caught.value)
