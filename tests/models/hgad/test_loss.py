import copy
import math

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.hgad.latents import Latents, LevelLatents
from avalanche_ad.models.hgad.loss import HGADTerms, hgad_terms
from avalanche_ad.models.hgad.mixture import inner_centers
from avalanche_ad.models.latents import attach_latents, latents_of
from avalanche_ad.models.losses import image_loss
from avalanche_ad.training import FlowGMMLoss


@pytest.fixture(scope="session")
def golden():
    from pathlib import Path

    import numpy as np

    path = Path(__file__).parents[2] / "data" / "hgad_golden.npz"
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture
def level(golden):
    """Return the golden inputs: 37 images of one position each, one level."""
    return LevelLatents(
        golden["z"].clone()[:, None, None].requires_grad_(),
        golden["logdet"][:, None, None],
        torch.cat([golden["mu"][:, None], golden["mu_delta"]], 1).requires_grad_(),
        golden["phi_inter"].clone().requires_grad_(),
        golden["phi_intra"].clone().requires_grad_(),
    )


def output_of(levels, known, count):
    output = torch.zeros(count, int(known.max()) + 1, requires_grad=True)
    return attach_latents(output, Latents(levels, known))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_terms_are_hgads(level, golden):
    terms = hgad_terms(level, golden["y"], smoothing=0.02)
    for value, name in zip(
        terms, ("L_g", "L_mi", "L_e", "L_g_intra", "L_z"), strict=True
    ):
        assert value.shape == (37,)
        close(value.mean(), golden[f"phase2_{name}"])
        if name in ("L_g", "L_mi", "L_e"):
            close(value.mean(), golden[f"phase1_{name}"])


@pytest.mark.parametrize("phase", [1, 2])
def test_total_is_hgads(level, golden, phase):
    criterion = FlowGMMLoss(lambda1=1.0, lambda2=100.0, smoothing=0.02)
    criterion.intra = phase == 2
    loss = criterion(output_of([level], torch.arange(5), 37), golden["y"])
    close(loss, golden[f"phase{phase}_total"])


def test_gradients_are_hgads(level, golden):
    criterion = FlowGMMLoss()
    criterion(output_of([level], torch.arange(5), 37), golden["y"]).backward()
    close(level.z.grad[:, 0, 0], golden["phase2_grad_z"])
    close(level.centers.grad[:, 0], golden["phase2_grad_mu"])
    close(level.centers.grad[:, 1:], golden["phase2_grad_mu_delta"])
    close(level.class_logits.grad, golden["phase2_grad_phi_inter"])
    close(level.inner_logits.grad, golden["phase2_grad_phi_intra"])


def test_the_inner_mixture_takes_no_part_in_the_first_phase(level, golden):
    criterion = FlowGMMLoss()
    criterion.intra = False
    criterion(output_of([level], torch.arange(5), 37), golden["y"]).backward()
    assert level.inner_logits.grad is None
    assert float(level.centers.grad[:, 1:].abs().max()) == 0
    assert float(level.centers.grad[:, 0].abs().max()) > 0
    assert criterion.terms[0, 3:].tolist() == [0, 0]


def test_terms_are_means_over_positions(golden):
    def level_of(z, log_det):
        centers = torch.cat([golden["mu"][:, None], golden["mu_delta"]], 1)
        return LevelLatents(
            z, log_det, centers, golden["phi_inter"], golden["phi_intra"]
        )

    z = golden["z"][:12].view(2, 2, 3, 24)
    log_det = golden["logdet"][:12].view(2, 2, 3)
    y = torch.tensor([1, 4])
    together = hgad_terms(level_of(z, log_det), y)
    apart = hgad_terms(
        level_of(z.reshape(12, 1, 1, 24), log_det.reshape(12, 1, 1)),
        y.repeat_interleave(6),
    )
    for whole, parts in zip(together, apart, strict=True):
        torch.testing.assert_close(whole, parts.view(2, 6).mean(1))


def test_far_latents_stay_finite(level, golden):
    far = LevelLatents(
        1e4 * level.z,
        level.log_det,
        level.centers,
        level.class_logits,
        level.inner_logits,
    )
    terms = hgad_terms(far, golden["y"])
    assert all(bool(term.isfinite().all()) for term in terms)


@pytest.fixture
def batch(make_model):
    model = make_model()
    model.add_categories([0, 1, 3])
    return model, torch.randn(4, model.layout.size), torch.tensor([0, 1, 3, 1])


def test_levels_are_summed_and_terms_reported(batch):
    model, x, y = batch
    criterion = FlowGMMLoss(lambda1=2.0, lambda2=3.0, reduction="none")
    output = model(x)
    loss = criterion(output, y)
    rows = torch.tensor([0, 1, 2, 1])
    expected = torch.zeros(4)
    for index, level in enumerate(output.latents.levels):
        terms = hgad_terms(level, rows)
        expected = expected + (
            2 * terms.inter
            - 3 * terms.mutual_information
            + terms.entropy
            + terms.intra
            + terms.likelihood
        )
        torch.testing.assert_close(
            criterion.terms[index],
            torch.stack([term.mean() for term in terms]).detach(),
        )
    torch.testing.assert_close(loss, expected)
    assert criterion.terms.shape == (2, len(HGADTerms._fields))
    assert not criterion.terms.requires_grad


@pytest.mark.parametrize("sliced", [False, True])
def test_reductions(batch, sliced):
    model, x, y = batch
    output = model(x)
    output = output[:, :] if sliced else output
    none, total, mean = (
        FlowGMMLoss(reduction=reduction, image_level=sliced)(output, y)
        for reduction in ("none", "sum", "mean")
    )
    assert none.shape == (4,)
    torch.testing.assert_close(total, none.sum())
    torch.testing.assert_close(mean, none.mean())


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none', got 'max'"):
        FlowGMMLoss(reduction="max")


def test_image_loss_is_its_formula():
    output = torch.tensor([[1.0, 2.0, -1e4], [0.5, 0.0, -1e4]])
    y = torch.tensor([1, 0])
    classification = torch.nn.functional.cross_entropy(output, y, reduction="none")
    expected = classification - torch.logsumexp(output, 1)
    torch.testing.assert_close(image_loss(output, y), expected)


LOSSES_OF_LATENTS = {
    "product": lambda output: output * 1.0,
    "sum": lambda output: output + 0,
    "slice": lambda output: output[:, :],
    "rows": lambda output: output[:4],
    "clone": lambda output: output.clone(),
    "joined": lambda output: torch.cat([output[:2], output[2:]]),
}


@pytest.mark.parametrize("lose", LOSSES_OF_LATENTS.values(), ids=LOSSES_OF_LATENTS)
@pytest.mark.parametrize("aligned", [False, True])
def test_an_output_without_latents_is_not_trained_on(batch, lose, aligned):
    model, x, y = batch
    criterion = FlowGMMLoss()
    criterion.aligned = aligned
    output = lose(model(x))
    with pytest.raises(TrainingError, match="lost its dense latents") as told:
        criterion(output, y)
    assert "FlowGMMLoss(image_level=True)" in str(told.value)
    assert "\n" not in str(told.value)
    # where nothing is trained, the image-level loss stands in unasked
    with torch.no_grad():
        assert bool(criterion(lose(model(x)), y).isfinite())
    assert bool(criterion(output.detach(), y).isfinite())


def test_sliced_output_and_evaluation_take_the_image_loss(batch):
    model, x, y = batch
    criterion = FlowGMMLoss(reduction="none", image_level=True)
    output = model(x)
    dense = criterion(output, y)
    assert criterion.terms is not None
    sliced = criterion(output[:, :], y)
    assert criterion.terms is None  # no stale report of another loss
    torch.testing.assert_close(sliced, image_loss(output, y))
    assert not torch.allclose(sliced, dense)
    with torch.no_grad():
        evaluated = criterion(model(x), y)
    torch.testing.assert_close(evaluated, sliced.detach())
    sliced.sum().backward()
    assert model.mixtures[0].centers.grad is not None


def test_unknown_categories_are_told(batch):
    model, x, _ = batch
    criterion = FlowGMMLoss()
    with pytest.raises(
        TrainingError, match=r"categories \[2\] are not known .*0, 1, 3"
    ):
        criterion(model(x), torch.tensor([0, 2, 1, 3]))
    with pytest.raises(TrainingError, match=r"categories \[7\] are not known"):
        criterion(model(x), torch.tensor([0, 7, 1, 3]))


def test_evaluating_on_categories_to_come_is_finite(batch):
    model, x, _ = batch
    with torch.no_grad():
        loss = FlowGMMLoss()(model(x), torch.tensor([0, 7, 1, 3]))
    assert bool(torch.isfinite(loss))
    assert float(loss) > 1e3  # as unlikely as a masked category


def test_a_model_without_categories_is_told(make_model):
    model = make_model(num_categories=2)
    with pytest.raises(TrainingError, match=r"not known to the model \(known: \[\]\)"):
        FlowGMMLoss()(
            attach_latents(
                torch.zeros(1, 2, requires_grad=True),
                model(torch.zeros(1, model.layout.size)).latents,
            ),
            torch.tensor([0]),
        )


def test_criterion_is_copied_after_use(batch):
    model, x, y = batch
    criterion = FlowGMMLoss()
    criterion(model(x), y).backward()
    twin = copy.deepcopy(criterion)
    assert torch.equal(twin.terms, criterion.terms)


def test_likelihood_term_is_of_a_density(level, golden):
    terms = hgad_terms(level, golden["y"])
    squared = (level.z - inner_centers(level.centers)[golden["y"]][:, None]).square()
    log_weights = level.inner_logits[golden["y"]].log_softmax(1)
    density = torch.logsumexp(
        -0.5 * squared[:, 0].sum(-1) - 12 * math.log(2 * math.pi) + log_weights, 1
    )
    expected = -torch.nn.functional.logsigmoid((density + level.log_det[:, 0, 0]) / 24)
    torch.testing.assert_close(terms.likelihood, expected)


def test_aligned_loss_is_the_negative_log_likelihood(make_model):
    model = make_model()
    model.add_categories([0, 1])
    generator = torch.Generator().manual_seed(0)
    for mixture in model.alignment.start(2, model.num_categories):
        for category in (0, 1):
            roots = torch.randn(2, 6, 6, generator=generator).triu() * 0.3
            roots = roots + torch.eye(6)
            roots.diagonal(0, -2, -1).abs_()
            means = torch.randn(2, 6, generator=generator)
            mixture.put(category, torch.tensor([0.3, 0.7]), means, roots)
    x, y = torch.randn(5, 30, generator=generator), torch.tensor([0, 1, 1, 0, 1])
    criterion = FlowGMMLoss(reduction="none")
    criterion.aligned = True
    told = []
    criterion.listeners.append(lambda latents, target: told.append((latents, target)))
    output = model.train()(x)
    loss = criterion(output, y)
    loss.sum().backward()
    assert all(
        p.grad.abs().sum() > 0 for p in model.flows[0].blocks[0].subnet[-1].parameters()
    )
    assert all(p.grad is None or not p.grad.any() for p in model.mixtures.parameters())
    assert told == [(latents_of(output), y)]
    # under the same mixtures an evaluation gives log p(x|c) / D at every position
    model.eval()
    with torch.no_grad():
        levels = model.log_likelihood_levels(latents_of(model(x)), y)
    expected = -sum(level.mean((1, 2)) for level in levels)
    torch.testing.assert_close(loss.detach(), expected)


def test_a_category_without_an_aligned_mixture_is_told(make_model):
    model = make_model()
    model.add_categories([0])
    criterion = FlowGMMLoss()
    criterion.aligned = True
    with pytest.raises(TrainingError, match="IncrementalMixturePlugin"):
        criterion(model.train()(torch.randn(2, 30)), torch.tensor([0, 0]))
