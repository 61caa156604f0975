"""The pull requests for Avalanche are of the files that are here now.

That they apply to its source distribution, and what its tests and theirs say, is what
``python upstream/patches.py check`` finds out; it takes minutes and a download.
"""

import importlib.util
import sys
import types
from pathlib import Path

import avalanche
import pytest
import torch

from avalanche_ad.datasets import (
    SyntheticAD,
    categories,
    open_dataset,
    write_mvtec_layout,
)

ROOT = Path(__file__).parent.parent
UPSTREAM = ROOT / "upstream"


def module_of(path):
    spec = importlib.util.spec_from_file_location(f"upstream_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def patches():
    return module_of(UPSTREAM / "patches.py")


@pytest.fixture(scope="module")
def tree(patches, tmp_path_factory):
    """Avalanche as it is installed: its wheel brings its tests and examples along."""
    installed = Path(avalanche.__file__).parent.parent
    return patches.unpack(installed, tmp_path_factory.mktemp("upstream") / "tree")


NAMES = sorted(path.parent.name for path in UPSTREAM.glob("*/pull_request.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_patch_is_what_the_files_make(patches, tree, name):
    (request,) = patches.pull_requests([name])
    assert patches.difference(request, tree) == request.patch.read_text("utf-8")
    assert request.tests
    assert request.suites


@pytest.mark.parametrize("name", NAMES)
def test_every_pull_request_has_its_text_and_a_checklist(name):
    text = (UPSTREAM / name / "README.md").read_text("utf-8")
    assert text.startswith("# ")
    assert "## Checklist" in text
    assert f"[`{name}`]({name}/README.md)" in (UPSTREAM / "README.md").read_text()


def test_a_text_that_is_not_there_once_is_refused(patches, tree, tmp_path):
    request = patches.PullRequest(
        "wrong",
        "",
        [],
        edits=[{"file": "avalanche/__init__.py", "before": "nowhere", "after": ""}],
    )
    with pytest.raises(patches.PatchError, match="0 times, not once"):
        patches.difference(request, tree)


def test_a_file_that_names_this_project_is_refused(patches):
    request = patches.PullRequest("anomaly_metrics", "", [])
    with pytest.raises(patches.PatchError, match="still names this project"):
        request.text("/avalanche_ad/evaluation/plugin_metrics.py")


def test_mvtec_ad_is_read_as_the_projects_reader_reads_it(tmp_path, monkeypatch):
    # what is a module of Avalanche's there is one of this project's here
    name = "avalanche.benchmarks.datasets.anomaly"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, f"{name}.categories", categories)
    upstream = module_of(UPSTREAM / "anomaly_benchmarks" / "datasets.py")
    names = upstream.MVTEC_AD_CATEGORIES
    counts = {"train_images": 2, "test_normals": 2, "test_anomalies": 2}
    drawn = SyntheticAD(64, **counts)
    root = write_mvtec_layout(drawn, tmp_path / "set")
    for category, name in zip(sorted(drawn.categories), names, strict=True):
        (root / category).rename(root / name)
    ours = open_dataset("mvtec_ad", root)
    for split in ("train", "test"):
        own = {one.path: one for one in ours.samples if one.split == split}
        theirs = upstream.MVTecAD(root, train=split == "train")
        assert {one.path for one in theirs.samples} == set(own)
        for sample, item in zip(theirs.samples, theirs, strict=True):
            known = own[sample.path]
            assert names[item[1]] == known.category
            if split == "test":
                assert bool(item[2]) == known.is_anomaly
                mask = torch.as_tensor(ours.mask(known)).float()
                assert torch.equal(item[3], mask)
