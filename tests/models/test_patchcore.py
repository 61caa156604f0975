"""PatchCore against direct computations, and what its bank does as categories come."""

from importlib.util import find_spec

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from avalanche_ad.errors import RecipeError, TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.memory import kept_tensors
from avalanche_ad.models.patchcore import PatchCore, PatchCoreOptions
from avalanche_ad.models.patchcore.coreset import greedy_order, projected
from avalanche_ad.models.patchcore.memory_bank import MemoryBank
from avalanche_ad.models.patchcore.neighbours import mean_distance, nearest_squares
from avalanche_ad.models.patchcore.patches import images_of, patch_features
from avalanche_ad.models.storage import load_model, save_model

LAYOUT = FeatureLayout(((6, 6, 5), (3, 3, 4)))
SIZE = (24, 24)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(category, count=12):
    """Features of a category, which lies apart from the others."""
    return drawn(count, LAYOUT.size, seed=category) + 3.0 * category


def fitted(categories=(0, 1, 2), **options):
    options = {"vectors": 60, "smoothing_sigma": 1.0} | options
    model = PatchCore(LAYOUT, **options)
    for category in categories:
        model.fit_category(category, images(category))
    return model.eval()


def calibrated(categories=(0, 1, 2), **options):
    model = fitted(categories, **options)
    for category in categories:
        x = images(category)
        model.calibrate([(x, torch.full((len(x),), category))])
    return model


def distances(model, x, category):
    chosen = torch.full((len(x),), category)
    (level,) = model.normality_levels("distance", latents_of(model(x)), chosen)
    return -level


# Patches ------------------------------------------------------------------------


def test_a_patch_is_the_mean_of_what_is_around_it():
    fine, coarse = drawn(2, 6, 6, 5), drawn(2, 3, 3, 4)
    found = patch_features([fine, coarse])
    assert found.shape == (2, 6, 6, 9)
    torch.testing.assert_close(found[:, 2, 3, :5], fine[:, 1:4, 2:5].mean((1, 2)))
    torch.testing.assert_close(found[:, 0, 5, :5], fine[:, :2, 4:].mean((1, 2)))
    pooled = avg_pool2d(
        coarse.permute(0, 3, 1, 2), 3, 1, padding=1, count_include_pad=False
    )
    expected = interpolate(pooled, (6, 6), mode="bilinear")
    torch.testing.assert_close(found[..., 5:], expected.permute(0, 2, 3, 1))


def test_without_a_neighbourhood_a_patch_is_the_position():
    level = drawn(2, 6, 6, 5)
    assert torch.equal(patch_features([level], 1), level)


def test_vectors_are_known_by_their_bits():
    patches = drawn(4, 7, 3).half()
    patches[3, 6] = patches[1, 2]
    chosen = torch.stack([patches[2, 0], patches[1, 2], patches[0, 5] + 1])
    assert images_of(chosen, patches).tolist() == [2, 1, -1]


# Coreset ------------------------------------------------------------------------


def naive_greedy(x, count):
    """Alg. 1 of the paper, word by word, from the vector nearest to the mean."""
    taken = [int((x - x.mean(0)).norm(dim=1).argmin())]
    while len(taken) < count:
        nearest = torch.stack([(x - x[row]).norm(dim=1) for row in taken]).amin(0)
        nearest[taken] = -1.0
        taken.append(int(nearest.argmax()))
    return taken


def test_the_order_is_that_of_the_naive_algorithm():
    x = drawn(80, 5)
    assert greedy_order(x, 40).tolist() == naive_greedy(x.double(), 40)


def test_a_smaller_coreset_is_the_beginning_of_a_larger_one():
    x = drawn(200, 8)
    whole = greedy_order(x, 200)
    assert sorted(whole.tolist()) == list(range(200))
    for count in (1, 7, 120):
        assert torch.equal(greedy_order(x, count), whole[:count])


def test_equal_vectors_are_taken_once_each():
    assert sorted(greedy_order(torch.ones(5, 3), 5).tolist()) == [0, 1, 2, 3, 4]


def test_a_projection_keeps_distances():
    x = drawn(50, 400)
    found = projected(x, 64, torch.Generator().manual_seed(0))
    assert found.shape == (50, 64)
    ratio = torch.pdist(found) / torch.pdist(x)
    assert float((ratio - 1).abs().mean()) < 0.1
    assert projected(x, 400, torch.Generator()) is x


# Neighbours ---------------------------------------------------------------------


FAISS = pytest.param(
    "faiss",
    marks=pytest.mark.skipif(
        find_spec("faiss") is None, reason="faiss, an extra, is not installed"
    ),
)


@pytest.mark.parametrize("search", ["torch", FAISS])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_distances_are_those_of_brute_force(neighbours, search):
    """Of more rows and vectors than a block has, far from the origin."""
    x, bank = drawn(600, 6) + 100.0, drawn(2500, 6, seed=1) + 100.0
    every = torch.cdist(x.double(), bank.double()).square()
    expected = every.topk(neighbours, largest=False).values.float()
    found = nearest_squares(x, bank, neighbours, search)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_search_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(
        "avalanche_ad.models.patchcore.neighbours.find_spec", lambda name: None
    )
    with pytest.raises(RecipeError, match="pip install 'avalanche_ad.faiss.'"):
        PatchCore(LAYOUT, search="faiss")


@pytest.mark.parametrize("search", ["torch", FAISS])
def test_neighbours_that_are_not_there_are_infinitely_far(search):
    found = nearest_squares(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), 2, search)
    assert found.tolist() == [[25.0, torch.inf]]
    assert mean_distance(found).tolist() == [5.0]
    assert nearest_squares(torch.zeros(1, 2), torch.zeros(0, 2)).isinf().all()


@pytest.mark.parametrize("neighbours", [1, 2])
def test_a_map_is_the_distance_to_the_nearest_vectors_kept(neighbours):
    model, x = fitted(neighbours=neighbours), images(1, 3)
    patches = patch_features(LAYOUT.unflatten(x)).flatten(0, 2)
    every = torch.cdist(patches.double(), model.bank.of(1).double())
    expected = every.topk(neighbours, largest=False).values.mean(1)
    found = distances(model, x, 1).flatten()
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-3)


def test_images_scored_as_several_categories_have_each_its_own_map():
    model, x = fitted(), images(1, 3)
    output, chosen = model(x), torch.tensor([0, 2, 0])
    found = model.normality_levels("distance", latents_of(output), chosen)[0].clone()
    for row, category in enumerate(chosen.tolist()):
        torch.testing.assert_close(-found[row], distances(model, x, category)[row])
    again = model.normality_levels("distance", latents_of(output), chosen.flip(0))
    assert torch.equal(again[0], found)


# The bank -----------------------------------------------------------------------


def test_a_share_of_all_positions_is_kept():
    model = fitted((0,), vectors=None, share=0.25)
    assert model.bank.counts.tolist() == [0.25 * 12 * 36]
    model = fitted((0,), vectors=None, share=0.25, max_positions=50)
    assert model.bank.counts.tolist() == [50]


def test_a_budget_is_shared_and_never_passed():
    model = PatchCore(LAYOUT, budget=100)
    for known, category in enumerate((3, 0, 1), 1):
        model.fit_category(category, images(category))
        assert model.bank.counts[[3, 0, 1][:known]].tolist() == [100 // known] * known
        assert len(model.bank.vectors) <= 100


def test_a_budget_keeps_what_it_would_have_chosen_at_once():
    """However the categories come: shrinking is a cut, and exact."""
    one_by_one = fitted((0, 1, 2), vectors=None, budget=100)
    other_order = fitted((2, 0, 1), vectors=None, budget=100)
    at_once = PatchCore(LAYOUT, budget=100)
    x = torch.cat([images(category) for category in range(3)])
    at_once.fit_experience([(x, torch.arange(3).repeat_interleave(12))])
    for model in (other_order, at_once):
        assert torch.equal(model.bank.vectors, one_by_one.bank.vectors)
        assert torch.equal(model(x), one_by_one(x))
    alone = fitted((1,), vectors=33)
    assert torch.equal(alone.bank.of(1), one_by_one.bank.of(1))


def test_constants_follow_a_cut():
    """They are those that calibration on the lost images would give now, or nearly."""
    model = calibrated((0,), vectors=None, budget=400)
    x, own = images(0), torch.zeros(12, dtype=torch.long)
    whole = model.constants([0])
    for category, tolerance in ((1, 1e-3), (2, 0.1)):  # a half is among the sizes
        model.fit_category(category, images(category))
        followed = model.constants([0])
        assert len(model.bank.of(0)) == 400 // (category + 1)
        model.calibrate([(x, own)])
        fresh = model.constants([0])
        assert float((followed - fresh).norm() / fresh.norm()) < tolerance
        assert float((whole - fresh).norm() / fresh.norm()) > 0.1


def test_a_budget_too_small_is_refused():
    model = fitted((0, 1), vectors=None, budget=2)
    with pytest.raises(TrainingError, match="budget of 2 vectors .* 3 categories"):
        model.fit_category(2, images(2))
    assert model.bank.counts.tolist() == [1, 1]


def test_without_a_budget_a_new_category_leaves_the_others():
    model = fitted((0, 2))
    before = {category: model.bank.of(category).clone() for category in (0, 2)}
    model.fit_category(1, images(1))
    assert model.known_categories.tolist() == [0, 1, 2]
    for category, vectors in before.items():
        assert torch.equal(model.bank.of(category), vectors)


def test_more_images_of_a_category_are_fitted_anew():
    x, model = images(0), PatchCore(LAYOUT, share=1.0)
    for count, expected in ((2, 2), (12, 12), (5, 12)):
        model.fit_experience([(x[:count], torch.zeros(count, dtype=torch.long))])
        assert model.bank.counts.tolist() == [36 * expected]


def test_features_beyond_half_precision_are_refused():
    with pytest.raises(TrainingError, match="category 0 has features up to [0-9.]+e"):
        PatchCore(LAYOUT).fit_category(0, images(0) * 1e6)


def test_memory_is_of_the_vectors_in_half_precision():
    found = kept_tensors(calibrated(), "parameters")

    def size(kind):
        return sum(tensor.nbytes for tensor in found[kind])

    assert size("exemplars") == 3 * 60 * 9 * 2 + 3 * 8 + 3  # with counts and known
    assert size("statistics") == 3 * 2 * 36 * 4 + 4  # calibration and spread
    assert found.keys() == {"exemplars", "statistics"}


# Categories ---------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 4, 50])
def test_the_own_category_is_inferred(stride):
    model = fitted(inference_stride=stride)
    for category in range(3):
        new = drawn(5, LAYOUT.size, seed=9 + category) + 3.0 * category
        output = model(new)
        assert model.infer_category(output).tolist() == [category] * 5
        assert -30 < float(output.min()) < float(output.max()) < 0


def test_affinity_is_of_the_squared_distances_at_some_positions():
    model, x = fitted(inference_stride=3), images(1, 4)
    spread = model.bank.vectors.float().var(0, correction=0).mean()
    for category in range(3):
        few = distances(model, x, category)[:, 1::3, 1::3].square().mean((1, 2))
        expected = -few / (2 * spread * 9**0.5)
        torch.testing.assert_close(
            model(x)[:, category], expected, rtol=1e-3, atol=1e-3
        )


def test_no_category_unknown_is_inferred_or_calibrated():
    model = fitted((1,))
    model.resize(4)
    assert model.infer_category(model(images(0))).unique().tolist() == [1]
    with pytest.raises(TrainingError, match="category 2 has not been learned"):
        model.calibrate([(images(2), torch.full((12,), 2))])


# Held out -----------------------------------------------------------------------


def test_constants_are_of_distances_to_the_vectors_of_other_images():
    """With all patches kept, each would be at no distance from itself."""
    model = fitted((0,), vectors=None, share=1.0)
    x = images(0)
    seen = {}
    model.put_constants = lambda category, levels: seen.update(levels)
    model.calibrate([(x, torch.zeros(12, dtype=torch.long))])
    patches = patch_features(LAYOUT.unflatten(x)).flatten(1, 2)
    for row in range(12):
        rest = torch.cat([patches[:row], patches[row + 1 :]]).flatten(0, 1)
        expected = torch.cdist(patches[row], rest).amin(1)
        found = -seen["distance"][0][row].flatten()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_each_is_scored_as_by_a_bank_that_never_saw_it(neighbours):
    """Where all patches are kept, that is the bank of the other images."""
    model = calibrated((0, 1), vectors=None, share=1.0, neighbours=neighbours)
    x = images(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.held_out_scores(1, x, SIZE, folds=4, images=9)
    assert model.holds_out_density(1, 12)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for first in range(0, 12, 3):
        rest = torch.cat([x[:first], x[first + 3 :]])
        model.fit_category(1, rest)
        model.calibrate([(rest, torch.ones(9, dtype=torch.long))])
        held = model(x[first : first + 3])
        expected = model.score(held, SIZE, torch.ones(3, dtype=torch.long))
        torch.testing.assert_close(
            found[first : first + 3], expected.image, rtol=1e-3, atol=1e-3
        )


def test_new_normals_score_like_those_held_out():
    model = calibrated(vectors=None, share=0.5)
    own = model.held_out_scores(1, images(1), SIZE)
    new = drawn(40, LAYOUT.size, seed=77) + 3.0
    scores = model.score(model(new), SIZE).image
    assert float(own.min()) > 0
    assert 0.6 < float(scores.mean() / own.mean()) < 1.4


def test_copies_of_an_image_are_held_out_with_it():
    x = images(1)
    copied = torch.cat([x, x[:4]])
    model = fitted((1,), vectors=None, share=1.0)
    model.fit_category(1, copied)
    model.calibrate([(copied, torch.ones(16, dtype=torch.long))])
    (found,) = model._distances_without(1, copied, [torch.arange(16)])
    assert float(found.min()) > 0.1
    assert len(model.held_out_scores(1, copied, SIZE)) == 12


def test_a_category_of_one_image_is_calibrated_by_it():
    model = PatchCore(LAYOUT)
    x, y = images(0, 1), torch.zeros(1, dtype=torch.long)
    model.fit_experience([(x, y)])
    model.calibrate([(x, y)])
    assert bool(model.score(model(images(0)), SIZE).maps.isfinite().all())


# States -------------------------------------------------------------------------


def test_a_saved_model_scores_alike(tmp_path):
    options = {"vectors": None, "budget": 100, "smoothing_sigma": 1.0}
    model = calibrated((0, 2), vectors=None, budget=100)
    model.resize(4)
    save_model(model, tmp_path, "patchcore", options, {})
    loaded, _ = load_model(tmp_path)
    assert type(loaded) is PatchCore
    assert (loaded.num_categories, loaded.known_categories.tolist()) == (4, [0, 2])
    x = images(2)
    assert torch.equal(loaded(x), model(x))
    expected = model.score(model(x), SIZE)
    assert torch.equal(loaded.score(loaded(x), SIZE).maps, expected.maps)


@pytest.mark.parametrize("nested", [False, True])
def test_a_state_of_other_categories_loads(nested):
    def within(module):
        return torch.nn.Sequential(module) if nested else module

    source, target = calibrated((0, 1, 2)), calibrated((0,), vectors=10)
    within(target).load_state_dict(within(source).state_dict())
    x = images(1)
    assert torch.equal(target(x), source(x))
    assert target.known_categories.tolist() == [0, 1, 2]


@pytest.mark.parametrize("prefix", ["", "bank."])
def test_a_state_that_contradicts_itself_is_refused_whole(prefix):
    model = fitted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value.clone() for name, value in before.items()}
    state["bank.vectors"] = state["bank.vectors"][:-1]
    module = model.bank if prefix else model
    given = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    with pytest.raises(RuntimeError, match="179 vectors, counted as"):
        module.load_state_dict(given)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_bank_of_two_sizes_is_refused():
    with pytest.raises(ValueError, match="contradict each other"):
        PatchCoreOptions(vectors=3, budget=4)


def test_a_bank_shrinks_to_the_first_vectors():
    bank = MemoryBank(2)
    bank.put(0, torch.arange(10.0).view(5, 2))
    bank.put(2, torch.ones(2, 2))
    bank.shrink(3)
    assert bank.of(0).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert bank.counts.tolist() == [3, 0, 2]
    assert len(bank.of(1)) == 0
