import io
import tarfile

import numpy as np
import pytest
from PIL import Image


def draw(kind, number, size=20):
    """Draw stripes or dots, so that there is something to tell apart."""
    generator = np.random.default_rng([kind, number])
    y, x = np.mgrid[:size, :size]
    wave = np.sin(x * (0.6 + 0.9 * kind) + generator.uniform(0, 6))
    if kind % 2:
        wave = wave * np.sin(y * 1.1 + generator.uniform(0, 6))
    grey = 128 + 90 * wave + generator.normal(0, 12, wave.shape)
    color = np.array([1.0, 0.9, 0.8]) * grey[..., None]
    return Image.fromarray(np.clip(color, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of 30 photographs, in folders."""
    root = tmp_path_factory.mktemp("photographs")
    for kind, name in enumerate(("dots", "stripes", "waves")):
        (root / name).mkdir()
        for number in range(30):
            draw(kind, number).save(root / name / f"{number}.png")
    (root / "notes.txt").write_text("not a photograph")
    return root


@pytest.fixture(scope="session")
def archive(folder, tmp_path_factory):
    """The same photographs in a tar archive."""
    path = tmp_path_factory.mktemp("archive") / "photographs.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.png")):
            content = file.read_bytes()
            member = tarfile.TarInfo(f"./{file.relative_to(folder).as_posix()}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
