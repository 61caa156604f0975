"""Evaluations per category against the metrics and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from avalanche_ad.evaluation.detection import UndefinedMetricWarning, fpr_at_tpr
from avalanche_ad.evaluation.diagnostics import evaluate_categories
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FlowGMM


@pytest.mark.parametrize("seed", range(20))
def test_fpr_is_read_off_the_roc_curve(seed):
    generator = np.random.default_rng(seed)
    labels = np.append(generator.random(60) < 0.4, [True, False])
    scores = generator.normal(size=62) + labels
    scores = np.round(scores, 1) if seed % 2 else scores  # with ties
    rates, recalls, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = rates[recalls >= 0.95].min()
    assert fpr_at_tpr(scores, labels) == pytest.approx(expected)


def test_fpr_without_a_class_is_undefined():
    with pytest.warns(UndefinedMetricWarning, match="FPR"):
        assert fpr_at_tpr([0.1, 0.2], [0, 0]) is None


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = FlowGMM(FeatureLayout(((4, 4, 6),)), couplings=1, condition_channels=4)
    model.add_categories([0, 1])
    x, y = torch.randn(8, 96), torch.arange(8) % 2
    model.calibrate([(x, y)])
    return model.train()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)

    def batch(count):
        masks = torch.rand(count, 8, 8, generator=generator) > 0.8
        masks[::2] = False
        y = torch.randint(2, (count,), generator=generator)
        x = torch.randn(count, 96, generator=generator)
        return x, y, masks.any((1, 2)), masks

    return [batch(20), batch(12)]


@pytest.mark.parametrize("oracle", [False, True])
def test_an_evaluation_is_of_one_category_and_one_kind(model, batches, oracle):
    found = evaluate_categories(
        model, batches, ("likelihood", "product"), oracle=oracle
    )
    assert [(one.kind, one.category) for one in found] == [
        ("likelihood", 0),
        ("likelihood", 1),
        ("product", 0),
        ("product", 1),
    ]
    x, y, anomalous, masks = (torch.cat(side) for side in zip(*batches, strict=True))
    assert model.training
    model.eval()
    with torch.no_grad():
        given = y if oracle else None
        scores = model.score(model(x), (8, 8), given, "product")
    for one in found[2:]:
        own = y == one.category
        image = scores.image[own].double().numpy()
        assert one.image_auroc == pytest.approx(roc_auc_score(anomalous[own], image))
        assert one.pixel_auroc == pytest.approx(
            roc_auc_score(masks[own].flatten(), scores.maps[own].flatten())
        )
        assert one.normals == pytest.approx(image[~anomalous[own].numpy()])
        assert one.anomalies == pytest.approx(image[anomalous[own].numpy()])
        right = (scores.category[own] == one.category).double().mean()
        assert one.accuracy == pytest.approx(float(right))
        assert not oracle or one.accuracy == 1
