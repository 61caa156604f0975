"""A class built in Python is what a recipe builds: the defaults are the same."""

from __future__ import annotations

import inspect

import pytest

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.models import FeatureGMM, FlowGMM
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.feature_gmm import FeatureGMMOptions
from avalanche_ad.models.hgad.options import FlowGMMOptions
from avalanche_ad.recipes import (
    BenchmarkRecipe,
    FeaturesRecipe,
    SyntheticRecipe,
    TrainingRecipe,
)
from avalanche_ad.training import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    FlowGMMLoss,
    make_optimizer,
)
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    GradientClippingPlugin,
    IntraClassWarmupPlugin,
    WarmupCosinePlugin,
)

# what takes a recipe's values, the recipe, names in the recipe that are others there,
# and keys that only the recipe has; None: names that both have are all there is to see
PAIRS = {
    "flow": (FlowGMM, FlowGMMOptions, {}, {"type", "packnet"}),
    "feature": (FeatureGMM, FeatureGMMOptions, {}, {"type"}),
    "loss": (FlowGMMLoss, TrainingRecipe, {"smoothing": "label_smoothing"}, None),
    "optimizer": (make_optimizer, TrainingRecipe, {}, None),
    "schedule": (
        WarmupCosinePlugin,
        TrainingRecipe,
        {"final_factor": "final_lr_factor"},
        None,
    ),
    "clipping": (
        GradientClippingPlugin,
        TrainingRecipe,
        {"max_norm": "gradient_clip"},
        None,
    ),
    "warm-up": (
        IntraClassWarmupPlugin,
        TrainingRecipe,
        {"epochs": "intra_class_warmup_epochs"},
        None,
    ),
    "calibration": (
        CalibrationPlugin,
        TrainingRecipe,
        {"images_per_category": "calibration_images"},
        None,
    ),
    "images": (SyntheticAD, SyntheticRecipe, {}, set()),
    "stream": (
        anomaly_benchmark,
        BenchmarkRecipe,
        {"feature_dtype": "features"},
        None,
    ),
}


def defaults(made):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.default is not parameter.empty
    }


@pytest.mark.parametrize("pair", PAIRS)
def test_class_and_recipe_have_the_same_defaults(pair):
    made, recipe, renamed, elsewhere = PAIRS[pair]
    of_class = {renamed.get(name, name): v for name, v in defaults(made).items()}
    of_recipe = {
        name: field.get_default(call_default_factory=True)
        for name, field in recipe.model_fields.items()
        if not field.is_required()
    }
    if isinstance(of_recipe.get("features"), FeaturesRecipe):
        of_recipe["features"] = of_recipe["features"].dtype
    both = of_class.keys() & of_recipe.keys()
    # the size of the images is the stream's own
    both -= {"image_size", "mask_size"}
    assert {name: of_class[name] for name in both} == {
        name: of_recipe[name] for name in both
    }
    assert both
    if elsewhere is not None:
        assert of_recipe.keys() - elsewhere == both


def test_what_models_share_has_one_default():
    shared = defaults(AnomalyModel)
    for made in (FlowGMM, FeatureGMM):
        own = defaults(made)
        # a mixture without a flow has no entropy that training has shaped
        differ = {name for name in shared if own[name] != shared[name]}
        assert differ <= {"score_kind"}


@pytest.mark.parametrize("made", [DynamicFlowGMM, DynamicFeatureGMM])
def test_a_dynamic_model_has_the_defaults_of_the_plain_one(made):
    from avalanche_ad.features.layout import FeatureLayout

    layout = FeatureLayout(((2, 2, 8),))
    options = {"couplings": 1, "condition_channels": 4}
    model = made(layout, **(options if made is DynamicFlowGMM else {}))
    assert model.position_calibration
    assert set(model.positions) == {"likelihood", "uncertainty"}
