"""Networks of a category: which images train them, which they score."""

import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import ContextFlowGMM
from avalanche_ad.models.context_flow.ensemble import fingerprints, left_out
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.storage import load_model, save_model

LAYOUT = FeatureLayout(((8, 9, 6), (4, 4, 5)))
SMALL = {
    "couplings": 2,
    "hidden": 8,
    "head": 8,
    "critic": 8,
    "condition_channels": 4,
    "crop": 5,
}


def features(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, LAYOUT.size, generator=generator)


def made(x, **options):
    model = ContextFlowGMM(LAYOUT, **(SMALL | options))
    model.add_categories([0], {0: x})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.categories.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def marks_of(x):
    return fingerprints(LAYOUT.unflatten(x))


def context(model, x):
    chosen = torch.zeros(len(x), dtype=torch.long)
    return model.normality_levels("context", latents_of(model(x)), chosen)


def alone(model, part, x):
    """Return what one of the networks says."""
    networks = model.categories["0"].networks[part]
    return [
        networks.normality(
            index,
            model.alignments[index](level, 0),
            model.get_buffer(f"code_{index}"),
        )
        for index, level in enumerate(LAYOUT.unflatten(x))
    ]


def test_fingerprints_tell_images_apart_and_their_copies_together():
    x = features(200)
    assert len(marks_of(x).unique()) == 200
    assert torch.equal(marks_of(x[::3]), marks_of(x)[::3])
    assert torch.equal(marks_of(x.half().float()), marks_of(x.half()))


@pytest.mark.parametrize("count", [4, 7, 12, 60, 100])
@pytest.mark.parametrize("networks", [2, 3, 6])
def test_every_network_leaves_a_sixth_out_and_none_the_same(count, networks):
    marks = torch.arange(count) + 1000
    out = left_out(marks, torch.arange(count), networks)
    every = torch.cat(out)
    assert len(every) == len(every.unique())
    assert torch.isin(every, marks).all()
    if count >= 12:
        for own in out:
            assert abs(len(own) - count / 6) <= 2
            # two blocks of neighbours
            assert (own.diff() > 1).sum() == 1


def test_copies_go_together_and_few_images_are_all_trained_on():
    copies = torch.tensor([0, 1, 0, 3, 4, 1, 6, 6, 8, 8, 10])
    marks = 100 + torch.arange(11)  # copies differ in their last bits
    parts = left_out(marks, copies, 2)
    first, second = ({int(copies[mark - 100]) for mark in own} for own in parts)
    assert (first, second) == ({0, 10}, {4})
    for own, group in zip(parts, (first, second), strict=True):
        assert len(own) == sum(int((copies == one).sum()) for one in group)
    few = torch.tensor([0, 0, 2, 3])
    assert [len(own) for own in left_out(marks[:4], few, 2)] == [0, 0]
    assert [len(own) for own in left_out(marks, torch.arange(11), 1)] == [0]


def test_near_copies_are_left_out_together():
    x = features(12)
    x = torch.cat([x, x + 1e-4 * torch.randn(x.shape)])
    model = made(x)
    first, second = model.categories["0"].leaves_out(marks_of(x)).T
    for out in (first, second):
        assert out.sum() == 4
        assert torch.equal(out[:12], out[12:])


def test_an_image_is_scored_by_the_network_that_has_left_it_out():
    x, new = features(12), features(5, seed=9)
    model = made(x)
    first, second = model.categories["0"].leaves_out(marks_of(x)).T
    assert first.sum() == second.sum() == 2
    assert torch.equal(model.held_out_rows(0, x), first | second)
    for found, one, other in zip(
        context(model, x), alone(model, 0, x), alone(model, 1, x), strict=True
    ):
        expected = (one + other) / 2
        expected[first], expected[second] = one[first], other[second]
        torch.testing.assert_close(found, expected)
    for found, one, other in zip(
        context(model, new), alone(model, 0, new), alone(model, 1, new), strict=True
    ):
        torch.testing.assert_close(found, (one + other) / 2)


def test_an_image_trains_one_network_that_does_not_leave_it_out():
    x = features(60)
    own = made(x, networks=3).categories["0"]
    marks, trained = marks_of(x), torch.zeros(60, 3, dtype=torch.long)
    torch.manual_seed(0)
    for _ in range(200):
        rows = dict(own.training_rows(marks))
        assert sorted(torch.cat(list(rows.values())).tolist()) == list(range(60))
        for index, networks in enumerate(own):
            trained[rows[networks], index] += 1
    out = own.leaves_out(marks)
    assert not trained[out].any()
    among = (~out).sum(1, keepdim=True)
    assert ((trained - 200 / among)[~out].abs() < 40).all()


def test_the_networks_of_left_out_images_stay_as_they_are():
    x = features(12)
    model = made(x).train()
    own = model.categories["0"]
    target = torch.zeros(12, dtype=torch.long)
    where = torch.ones(12, 16, 16, dtype=torch.bool)
    for index, rows in enumerate(own.leaves_out(marks_of(x)).T):
        model.zero_grad()
        some = x[rows]
        model.loss(model(some), target[rows]).sum().backward()
        model.defect_loss(some, target[rows], some, where[rows]).backward()
        for other, networks in enumerate(own):
            grads = [parameter.grad for parameter in networks.parameters()]
            trained = any(grad is not None and bool(grad.any()) for grad in grads)
            assert trained == (other != index)


@pytest.mark.parametrize("count", [2, 9])
def test_a_saved_model_knows_what_it_left_out(tmp_path, count):
    x = features(count)
    model = made(x)
    model.calibrate([(x, torch.zeros(count, dtype=torch.long))])
    save_model(model, tmp_path, "context_flow", SMALL, {})
    again, _ = load_model(tmp_path)
    assert len(again.categories["0"]) == 2
    assert torch.equal(again.categories["0"].images, model.categories["0"].images)
    assert len(again.categories["0"].images) == (0 if count == 2 else 3)
    for one, other in zip(context(model, x), context(again, x), strict=True):
        assert torch.equal(one, other)


def test_held_out_levels_are_of_the_networks_that_have_not_seen_them():
    x = features(12)
    model = made(x)
    assert model.holds_out_density(0, 12)
    rows = torch.arange(12)
    parts = [(rows[3:], rows[:5]), (rows[:6], rows[6:])]
    expected = context(model, x)
    names = ("likelihood", "context")
    for (_, chosen), found in zip(
        parts, model.levels_without(0, x, parts, names), strict=True
    ):
        for level, of in zip(found["context"], expected, strict=True):
            torch.testing.assert_close(level, of[chosen])
    whole = made(x, networks=1)
    assert not whole.holds_out_density(0, 12)
    assert whole.held_out_rows(0, x).all()


def test_held_out_scores_are_as_those_of_new_images():
    """Networks that know their images by heart, and images that all look alike."""
    x, new = features(60), features(400, seed=5)
    above = {}
    for networks in (1, 2):
        model = ContextFlowGMM(
            LAYOUT,
            **(SMALL | {"hidden": 64, "head": 128}),
            networks=networks,
            noise=0.3,
        )
        model.add_categories([0], {0: x})
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        target = torch.zeros(len(x), dtype=torch.long)
        torch.manual_seed(0)
        for _ in range(300):
            optimizer.zero_grad()
            model.loss(model(x), target).mean().backward()
            optimizer.step()
        model.eval()
        model.score_kind = "context"
        model.calibrate([(x, target)])
        held = model.held_out_scores(0, x, (16, 16), images=len(x))
        assert len(held) == (20 if networks == 2 else 60)
        scores = model.score(model(new), (16, 16)).image
        above[networks] = float((scores > held.quantile(0.9)).float().mean())
    assert above[2] < 0.25
    assert above[1] > above[2] + 0.2
