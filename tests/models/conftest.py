"""A small flow-GMM with weights that are not the initial ones, and its features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, FlowGMM

LAYOUT = FeatureLayout(((4, 4, 6), (2, 2, 6)))
GOLDEN = Path(__file__).parents[1] / "data" / "hgad_golden.npz"


@pytest.fixture(scope="session")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture
def layout():
    return LAYOUT


@pytest.fixture
def features():
    """Features of images, (count, size)."""

    def make(count=5, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, LAYOUT.size, generator=generator)

    return make


@pytest.fixture
def flow_gmm():
    """Build a small FlowGMM; ``known`` categories started, all weights shaken."""

    def make(known=(0, 1, 2), **options):
        options = {
            "couplings": 2,
            "condition_channels": 4,
            "centers_per_category": 3,
            "smoothing_sigma": 1.0,
            "position_calibration": False,  # HGAD's own scores
        } | options
        model = FlowGMM(LAYOUT, **options)
        model.add_categories(list(known))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                shake = torch.randn(parameter.shape, generator=generator)
                parameter += 0.1 * shake
        return model

    return make


@pytest.fixture
def feature_gmm(features):
    """Build a FeatureGMM fitted on one set of features per known category."""

    def make(known=(0, 1, 2), **options):
        options = {"smoothing_sigma": 1.0, "position_calibration": False} | options
        model = FeatureGMM(LAYOUT, **options)
        for category in known:
            model.fit_category(category, features(6, seed=category) + category)
        return model

    return make


@pytest.fixture(params=["flow_gmm", "feature_gmm"])
def make_model(request):
    """Build either model; both keep one contract."""
    return request.getfixturevalue(request.param)
