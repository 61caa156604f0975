"""Which files are nobody's images."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_ad.datasets import is_system_file


@pytest.mark.parametrize(
    "name",
    [
        "._000.png",
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "__MACOSX/good/000.png",
        ".thumbnails/000.png",
        "good/.cache/deep/000.png",
    ],
)
def test_hidden_and_system_files_are_known(name):
    assert is_system_file(Path(name))
    assert is_system_file(Path("/.data/images", name), Path("/.data/images"))


@pytest.mark.parametrize("name", ["000.png", "a.b.png", "good/000.png", "../000.png"])
def test_images_are_no_system_files_wherever_their_folder_is(name):
    assert not is_system_file(Path(name))
    assert not is_system_file(Path("/.data/images", name), Path("/.data/images"))
    assert not is_system_file(Path("/.data/images/000.png"))
