import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.detection import (
    UndefinedMetricWarning,
    aupro,
    auroc,
    average_precision,
    binary_metrics,
    f1_max,
    pixel_metrics,
)
from avalanche_ad.evaluation.detection_curve import missing_class


def sklearn_f1_max(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        return np.nanmax(2 * precision * recall / (precision + recall))


def brute_force_aupro(score_maps, masks, limit):
    """Evaluate the definition at every distinct threshold, one after the other."""
    regions = []
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(image, labelled == index) for index in range(1, count + 1)]
    normal = score_maps[~masks]
    rate, overlap = [0.0], [0.0]
    for threshold in sorted(set(score_maps.ravel().tolist()), reverse=True):
        rate.append(np.mean(normal >= threshold))
        overlap.append(
            np.mean([np.mean(score_maps[i][r] >= threshold) for i, r in regions])
        )
    area = 0.0
    for k in range(1, len(rate)):
        left, right = rate[k - 1], min(rate[k], limit)
        if right <= left:
            continue
        slope = (overlap[k] - overlap[k - 1]) / (rate[k] - rate[k - 1])
        end = overlap[k - 1] + slope * (right - left)
        area += (right - left) * (overlap[k - 1] + end) / 2
    return area / limit


def both_classes(labels):
    labels = np.array(labels, dtype=bool)
    labels.flat[0], labels.flat[-1] = True, False
    return labels


few_values = st.sampled_from([-3.0, -0.5, 0.0, -0.0, 1e-12, 0.1, 2.0])
any_value = st.floats(-1e6, 1e6, width=32)
sizes = st.integers(2, 60)


@st.composite
def scored_samples(draw):
    size = draw(sizes)
    values = draw(st.sampled_from([few_values, any_value]))
    scores = draw(hnp.arrays(np.float64, size, elements=values))
    labels = both_classes(draw(hnp.arrays(bool, size)))
    return scores, labels


@st.composite
def scored_maps(draw):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 6)))
    values = draw(st.sampled_from([few_values, any_value]))
    maps = draw(hnp.arrays(np.float64, shape, elements=values))
    return maps, both_classes(draw(hnp.arrays(bool, shape)))


@settings(max_examples=100, deadline=None)
@given(scored_samples(), st.sampled_from([np.float32, np.float64]))
def test_binary_metrics_equal_scikit_learn(samples, dtype):
    scores, labels = samples[0].astype(dtype), samples[1]
    found = binary_metrics(scores, labels)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    expected = average_precision_score(labels, scores)
    assert found.ap == pytest.approx(expected, abs=1e-9)
    assert found.f1max == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(scored_samples())
def test_threshold_reaches_the_highest_f1(samples):
    scores, labels = samples
    found = binary_metrics(scores, labels)
    predicted = scores >= found.threshold
    f1 = 2 * np.sum(predicted & labels) / (predicted.sum() + labels.sum())
    assert f1 == pytest.approx(found.f1max)


@settings(max_examples=100, deadline=None)
@given(scored_samples(), st.randoms(use_true_random=False))
def test_order_of_the_samples_does_not_matter(samples, random):
    scores, labels = samples
    order = list(range(len(scores)))
    random.shuffle(order)
    assert binary_metrics(scores, labels) == binary_metrics(
        scores[order], labels[order]
    )


def test_many_samples_equal_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.random(200_000) < 0.03
    scores = (generator.normal(size=labels.size) + labels).astype(np.float32)
    found = binary_metrics(scores, labels)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    expected = average_precision_score(labels, scores)
    assert found.ap == pytest.approx(expected, abs=1e-6)
    assert found.f1max == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-6)


def test_constant_scores_are_chance():
    found = binary_metrics(np.ones(8), [1, 0, 0, 0, 1, 0, 0, 0])
    assert found.auroc == 0.5
    assert found.ap == 0.25
    assert found.f1max == pytest.approx(0.4)
    assert found.threshold == 1.0


def test_a_ranking_below_chance_is_not_flipped():
    assert auroc([0.9, 0.1], [0, 1]) == 0.0


def test_thin_faces_and_plain_python_input():
    scores, labels = [1, 3, 2, 4], [0, 1, 1, 0]
    found = binary_metrics(scores, labels)
    assert auroc(scores, labels) == found.auroc
    assert average_precision(scores, labels) == found.ap
    assert f1_max(scores, labels) == found.f1max
    assert all(type(value) is float for value in (found.auroc, found.threshold))


def test_float64_scores_keep_their_precision():
    assert auroc(np.array([1.0, 1.0 + 1e-12]), [0, 1]) == 1.0


def test_half_precision_and_read_only_input():
    scores = np.array([0.1, 0.5, 0.2], dtype=np.float16)
    scores.setflags(write=False)
    assert auroc(scores, [0, 1, 0]) == 1.0


@pytest.mark.parametrize(
    ("labels", "missing"), [([0, 0], "anomalous"), ([1, 1], "normal"), ([], "anom")]
)
@pytest.mark.parametrize("measure", [auroc, average_precision, f1_max])
def test_one_class_is_none_with_a_warning(measure, labels, missing):
    with pytest.warns(UndefinedMetricWarning, match=f"no {missing}"):
        assert measure(np.zeros(len(labels)), labels) is None


@pytest.mark.parametrize("filled", [False, True])
def test_maps_of_one_class_are_none_with_a_warning(filled):
    maps, masks = np.zeros((2, 3, 3)), np.full((2, 3, 3), filled)
    with pytest.warns(UndefinedMetricWarning, match="pixels"):
        assert aupro(maps, masks) is None
    with pytest.warns(UndefinedMetricWarning, match="AUPRO"):
        assert pixel_metrics(maps, masks).aupro is None


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken):
    with pytest.raises(AvalancheADError, match=r"finite scores, got 1 of 3"):
        binary_metrics([0.0, broken, 1.0], [0, 1, 0])
    maps = np.zeros((1, 2, 2))
    maps[0, 0, 0] = broken
    with pytest.raises(AvalancheADError, match="finite"):
        aupro(maps, maps > -1)


def test_wrong_shapes_and_limits_are_refused():
    with pytest.raises(AvalancheADError, match=r"one shape, got \(2,\) and \(3,\)"):
        binary_metrics([0, 1], [0, 1, 1])
    maps = np.zeros((2, 2))
    with pytest.raises(AvalancheADError, match=r"\(N, H, W\), got \(2, 2\)"):
        pixel_metrics(maps, maps)
    for limit in (0.0, -0.1, 1.5):
        with pytest.raises(AvalancheADError, match=r"fpr_limit in \(0, 1\]"):
            aupro(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), limit)


@settings(max_examples=100, deadline=None)
@given(scored_maps(), st.sampled_from([0.05, 0.25, 0.3, 0.5, 1.0]))
def test_aupro_equals_brute_force(samples, limit):
    maps, masks = samples
    expected = brute_force_aupro(maps, masks, limit)
    assert aupro(maps, masks, limit) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(scored_maps())
def test_pixel_metrics_are_the_single_measures_over_pooled_pixels(samples):
    maps, masks = samples
    found = pixel_metrics(maps, masks, 0.3)
    binary = binary_metrics(maps, masks)
    assert (found.auroc, found.ap) == (binary.auroc, binary.ap)
    assert (found.f1max, found.threshold) == (binary.f1max, binary.threshold)
    assert found.aupro == aupro(maps, masks, 0.3)


def test_perfect_maps_have_an_aupro_of_one():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 1:3, 1:3] = masks[0, 5:8, 5:8] = True
    assert aupro(masks.astype(np.float32), masks) == pytest.approx(1.0)


def test_regions_weigh_the_same_whatever_their_size():
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, 0, 0] = True
    masks[0, 10:20, 10:20] = True
    maps = np.zeros(masks.shape)
    maps[0, 0, 0] = 1.0  # only the region of one pixel is found
    rate_part = (0.5 + (0.5 + 0.5 * 0.3)) / 2  # PRO goes from 1/2 to 1 along FPR
    assert aupro(maps, masks) == pytest.approx(rate_part)


def test_diagonal_neighbours_are_one_region_and_images_are_never_joined():
    diagonal = np.zeros((1, 6, 6), dtype=bool)
    diagonal[0, 0, 0] = diagonal[0, 1, 1] = diagonal[0, 1, 2] = True
    maps = np.zeros(diagonal.shape)
    maps[0, 0, 0] = 1.0
    assert aupro(maps, diagonal, 1.0) == pytest.approx((1 / 3 + 1) / 2)
    stacked = np.zeros((2, 6, 6), dtype=bool)
    stacked[:, 0, 0] = True
    stacked[1, 0, 1] = True
    maps = np.zeros(stacked.shape)
    maps[0, 0, 0] = 1.0
    assert aupro(maps, stacked, 1.0) == pytest.approx((1 / 2 + 1) / 2)


def test_normal_images_count_in_the_false_positive_rate():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0, 0] = True
    maps = np.zeros(masks.shape)
    maps[1] = 2.0
    maps[0, 0, 0] = 1.0  # below every pixel of the normal image
    assert aupro(maps, masks, 0.3) == 0.0
    assert aupro(maps, masks, 1.0) > 0.4


def test_missing_class():
    assert missing_class([0, 1]) is None
    assert missing_class([0]) == "anomalous"
    assert missing_class([True]) == "normal"
