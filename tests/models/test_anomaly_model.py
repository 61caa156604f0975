"""What both models promise: outputs, calibration, scores and prediction."""

import copy

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.scoring import normality_map

MASK = (12, 10)


class TwoLevels:
    """A frozen backbone of the layout's shapes: block means of the colours."""

    def __init__(self, size=8):
        self.size = size
        self.seen = []

    def __call__(self, images):
        self.seen.append(tuple(images.shape))
        assert images.shape[1:] == (3, self.size, self.size)
        assert images.is_floating_point()
        both = torch.cat([images, images.square()], dim=1)
        pool = torch.nn.functional.adaptive_avg_pool2d
        return [3 * pool(both, side).permute(0, 2, 3, 1) for side in (4, 2)]


def calibrated(model, features, known=(0, 1, 2)):
    model.eval()
    model.calibrate([(features(6, seed=c) + c, torch.full((6,), c)) for c in known])
    return model


def test_output_is_one_row_an_image_and_one_column_a_category(make_model, features):
    model = make_model(known=(0, 2))
    model.resize(5)
    output = model(features(4)).detach()
    assert output.shape == (4, 5)
    assert model.known_categories.tolist() == [0, 2]
    assert (output[:, [1, 3, 4]] == MASKED).all()
    assert bool(output.isfinite().all())
    assert float(output[:, [0, 2]].min()) > MASKED / 2
    softmax = output.softmax(1)
    assert float(softmax[:, [1, 3, 4]].max()) == 0
    assert set(model.infer_category(output).tolist()) <= {0, 2}
    assert torch.equal(model.infer_category(output), output.argmax(1))


@pytest.mark.parametrize("room", [0, 3])
def test_a_model_without_categories_is_asked_in_vain(make_model, features, room):
    model = make_model(known=())
    model.resize(room)
    output = model(features(2))
    assert output.shape == (2, room)
    with pytest.raises(TrainingError, match="knows no category yet"):
        model.infer_category(output)


def test_one_image_is_scored_alone(make_model, features):
    model = make_model().eval()
    x = features(5)
    together = model(x)
    for row in range(5):
        alone = model(x[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-4)


def test_slicing_loses_the_latents_and_scoring_says_so(make_model, features):
    model = calibrated(make_model(), features)
    output = model(features(2))
    assert latents_of(output) is not None
    assert latents_of(output[:, :2]) is None
    with pytest.raises(TrainingError, match="carries no latents"):
        model.score(output[:, :2], MASK)


def test_nothing_with_a_graph_stays_on_the_model(make_model, features):
    model = calibrated(make_model(), features)
    x = features(3)
    output = model(x)
    if output.requires_grad:
        output.sum().backward()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), output)
    tensors = [*model.buffers(), *vars(model).values()]
    graphs = [t for t in tensors if isinstance(t, torch.Tensor) and t.grad_fn]
    assert graphs == []


def test_calibration_keeps_the_largest_log_likelihood(make_model, features):
    model = make_model(known=(0, 1, 2)).eval()
    x, y = features(7), torch.tensor([2, 0, 2, 0, 0, 2, 2])
    model.calibrate([(x[:4], y[:4]), (x[4:], y[4:])])
    levels = model.log_likelihood_levels(latents_of(model(x)), y)
    for category in (0, 2):
        for index, level in enumerate(levels):
            expected = level[y == category].max()
            torch.testing.assert_close(
                model.level_maximum[category, index], expected.detach()
            )
    assert bool(model.level_maximum[1].isnan().all())


def test_categories_without_an_image_keep_their_constants(make_model, features):
    model = calibrated(make_model(), features)
    before = model.level_maximum.clone()
    model.calibrate([(features(3, seed=9), torch.ones(3, dtype=torch.long))])
    assert torch.equal(model.level_maximum[[0, 2]], before[[0, 2]])
    assert not torch.equal(model.level_maximum[1], before[1])


@pytest.mark.parametrize("likelihood_map", ["log", "probability"])
def test_scores_are_their_formula(make_model, features, likelihood_map):
    model = calibrated(
        make_model(score_kind="product", likelihood_map=likelihood_map), features
    )
    x = features(4) + torch.tensor([0.0, 1, 2, 0])[:, None]
    output = model(x)
    latents = latents_of(output)
    category = model.infer_category(output)
    likelihood = [
        (level - model.level_maximum[category, index, None, None]).clamp(max=0)
        for index, level in enumerate(model.log_likelihood_levels(latents, category))
    ]
    if likelihood_map == "probability":
        likelihood = [level.exp() for level in likelihood]
    else:
        likelihood = [level + 1 for level in likelihood]
    entropy = model.negative_entropy_levels(latents, category)
    entropy = [level.exp() for level in entropy]
    expected = {
        "likelihood": 2 - normality_map(likelihood, MASK, 1.0),
        "uncertainty": 2 - normality_map(entropy, MASK, 1.0),
    }
    expected["product"] = expected["likelihood"] * expected["uncertainty"]
    for kind, maps in expected.items():
        scores = model.score(output, MASK, kind=kind)
        torch.testing.assert_close(scores.maps, maps.detach())
        assert torch.equal(scores.image, scores.maps.flatten(1).amax(1))
        assert torch.equal(scores.category, category)
        assert not scores.maps.requires_grad
    assert torch.equal(
        model.score(output, MASK).maps, model.score(output, MASK, kind="product").maps
    )


def test_far_features_score_higher(make_model, features):
    model = calibrated(make_model(), features)
    near = model.score(model(features(6, seed=0)), MASK, kind="likelihood")
    far = model.score(model(features(6, seed=0) * 6), MASK, kind="likelihood")
    assert float(far.image.min()) > float(near.image.max())


def test_oracle_scores_are_given_the_category(make_model, features):
    model = calibrated(make_model(), features)
    output = model(features(4))
    inferred = model.infer_category(output)
    agnostic = model.score(output, MASK)
    same = model.score(output, MASK, category=inferred)
    assert torch.equal(agnostic.maps, same.maps)
    other = (inferred + 1) % 3
    oracle = model.score(output, MASK, category=other)
    assert torch.equal(oracle.category, other)
    assert not torch.allclose(oracle.maps, agnostic.maps)


def test_oracle_scores_of_a_category_not_learned_are_refused(make_model, features):
    model = calibrated(make_model(), features)
    model.resize(5)
    output = model(features(2))
    with pytest.raises(TrainingError, match=r"categories \[4\] have not been learned"):
        model.score(output, MASK, category=torch.tensor([1, 4]))


def test_scores_without_calibration_are_refused(make_model, features):
    model = make_model()
    output = model(features(2))
    with pytest.raises(TrainingError, match="not calibrated"):
        model.score(output, MASK, kind="likelihood")


def test_a_category_without_constants_borrows_the_largest(make_model, features):
    model = make_model()
    x, y = features(4), torch.tensor([0, 0, 1, 1])
    model.calibrate([(x, y)])
    largest = model.level_maximum[:2].amax(0)
    assert bool(model.level_maximum[2:].isnan().all())
    category = torch.tensor([0, 2, 1, 2])
    borrowed = model.score(model(x), MASK, category, kind="likelihood")
    model.level_maximum[2] = largest
    given = model.score(model(x), MASK, category, kind="likelihood")
    assert torch.equal(borrowed.maps, given.maps)


def test_calibration_sees_all_positions_whatever_the_mode(make_model, features):
    model = make_model()
    batches = [(features(3), torch.tensor([0, 1, 2]))]
    model.eval().calibrate(batches)
    expected = model.level_maximum.clone()
    model.position_fraction = 0.25
    model.train().calibrate(batches)
    assert torch.equal(model.level_maximum, expected)
    assert model.training


def test_a_fresh_model_makes_room_for_the_state_it_loads(make_model, features):
    model = calibrated(make_model(), features)
    options = {"position_calibration": False}
    if "components" not in vars(model):
        options |= {
            "couplings": 2,
            "condition_channels": model.flows[0].condition_channels,
            "centers_per_category": model.mixtures[0].centers_per_category,
        }
    other = type(model)(model.layout, **options)
    if "components" in vars(model) and other.components != model.components:
        pytest.skip("another number of components is another model")
    other.load_state_dict(model.state_dict())
    x = features(2)
    assert torch.equal(other.eval()(x), model(x))


@pytest.mark.parametrize("kind", ["product", "uncertainty"])
def test_one_category_leaves_the_likelihood_alone(make_model, features, kind):
    model = calibrated(make_model(known=(0,)), features, known=(0,))
    output = model(features(3))
    likelihood = model.score(output, MASK, kind="likelihood")
    assert torch.equal(model.score(output, MASK, kind=kind).maps, likelihood.maps)


def test_prediction_in_batches_is_prediction_at_once(make_model, features):
    model = calibrated(make_model(), features)
    backbone = TwoLevels()
    model.attach_backbone(backbone, 8)
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    once = model.predict(images, batch_size=5)
    parts = model.predict(images, batch_size=2)
    assert [shape[0] for shape in backbone.seen] == [5, 2, 2, 1]
    assert once.maps.shape == (5, 8, 8)
    torch.testing.assert_close(once.maps, parts.maps, rtol=1e-4, atol=1e-5)
    assert torch.equal(once.category, parts.category)
    assert len(once.image.unique()) == 5


def test_images_and_their_features_get_the_same_scores(make_model, features):
    model = calibrated(make_model(), features)
    backbone = TwoLevels()
    model.attach_backbone(backbone, 8, mask_size=10)
    mask = (10, 10)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # as everywhere that scores: a graph costs the last bits
        from_features = model.score(model(model.layout.flatten(backbone(images))), mask)
        from_images = model.score(model(images), mask)
    predicted = model.predict(images)
    for scores in (from_images, predicted):
        assert torch.equal(scores.maps, from_features.maps)
        assert torch.equal(scores.image, from_features.image)


def test_bytes_are_floats_of_255_steps(make_model, features):
    model = calibrated(make_model(), features)
    model.attach_backbone(TwoLevels(), 8)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=generator)
    from_bytes = model.predict(pixels.to(torch.uint8))
    from_floats = model.predict(pixels / 255.0)
    assert torch.equal(from_bytes.maps, from_floats.maps)


def test_prediction_resizes_images(make_model, features):
    model = calibrated(make_model(), features)
    backbone = TwoLevels()
    model.attach_backbone(backbone, 8)
    scores = model.predict(torch.rand(1, 3, 20, 16))
    assert backbone.seen == [(1, 3, 8, 8)]
    assert scores.maps.shape == (1, 8, 8)


def test_floats_beyond_one_are_refused(make_model, features):
    model = calibrated(make_model(), features)
    model.attach_backbone(TwoLevels(), 8)
    with pytest.raises(ValueError, match="got floats up to 255: divide them by 255"):
        model.predict(torch.full((1, 3, 8, 8), 255.0))


@pytest.mark.parametrize("training", [True, False])
def test_prediction_restores_the_training_mode(make_model, features, training):
    model = calibrated(make_model(), features)
    model.attach_backbone(TwoLevels(), 8)
    model.train(training)
    model.predict(torch.rand(1, 3, 8, 8))
    assert model.training is training
    model.attach_backbone(lambda images: 1 / 0, 8)
    with pytest.raises(ZeroDivisionError):
        model.predict(torch.rand(1, 3, 8, 8))
    assert model.training is training


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (0, 3, 8, 8)])
def test_prediction_refuses_what_is_no_batch_of_images(make_model, shape):
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), got"):
        make_model().predict(torch.rand(*shape))


def test_prediction_needs_a_backbone(make_model):
    with pytest.raises(TrainingError, match="attach_backbone"):
        make_model().predict(torch.rand(1, 3, 8, 8))


def test_copies_share_the_backbone_and_hold_none_of_it(make_model):
    model = make_model()
    names = set(model.state_dict())
    backbone = torch.nn.Linear(2, 2)
    model.attach_backbone(backbone, 8)
    twin = copy.deepcopy(model)
    assert twin._shared.backbone is backbone
    assert set(model.state_dict()) == names
    held = {id(parameter) for parameter in model.parameters()}
    assert not held & {id(parameter) for parameter in backbone.parameters()}
