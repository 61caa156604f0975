import pytest
import torch

from avalanche_ad.models.hgad.loss import hgad_terms
from avalanche_ad.models.latents import latents_of
from avalanche_ad.training import FlowGMMLoss, make_optimizer
from avalanche_ad.training.plugins import FlowGenerativeReplayPlugin


@pytest.fixture
def learned(make_model):
    model = make_model()
    model.add_categories([0, 1, 3])
    return model


def test_the_loss_of_a_minibatch_of_the_pool(learned, fake_strategy):
    criterion = FlowGMMLoss(lambda2=10.0)
    strategy = fake_strategy(model=learned, _criterion=criterion)
    plugin = FlowGenerativeReplayPlugin(weight=0.5, batch_size=6, pool_size=9)
    pool = plugin.draw_pool(learned, [0, 3])
    torch.manual_seed(4)
    loss = plugin.rehearsal_loss(strategy, pool)

    torch.manual_seed(4)
    rows = torch.randint(9, (6,))
    x, y = pool[0][rows], pool[1][rows]
    row_of = {0: 0, 1: 1, 3: 2}  # of the known categories' mixtures
    target = torch.tensor([row_of[category] for category in y.tolist()])
    expected = torch.zeros(6)
    for level in latents_of(learned(x)).levels:
        inter, information, entropy, intra, likelihood = hgad_terms(level, target)
        expected = expected + inter - 10 * information + entropy + intra + likelihood
    torch.testing.assert_close(loss, 0.5 * expected.mean())
    loss.backward()
    assert learned.mixtures[0].centers.grad is not None


def test_the_report_of_terms_stays_the_new_datas(learned, fake_strategy):
    criterion = FlowGMMLoss()
    strategy = fake_strategy(model=learned, _criterion=criterion)
    plugin = FlowGenerativeReplayPlugin(batch_size=2, pool_size=4)
    pool = plugin.draw_pool(learned, [0, 1])
    criterion(learned(torch.randn(3, learned.layout.size)), torch.tensor([0, 1, 3]))
    terms = criterion.terms
    plugin.rehearsal_loss(strategy, pool)
    assert criterion.terms is terms


def test_the_pool_is_of_the_old_categories(learned, layout):
    plugin = FlowGenerativeReplayPlugin(pool_size=21)
    x, y = plugin.draw_pool(learned, [0, 1, 3])
    assert x.shape == (21, layout.size)
    assert y.bincount().tolist() == [7, 7, 0, 7]
    assert not x.requires_grad


def test_a_trained_models_samples_are_of_their_category(stream, make_model):
    """What is replayed looks, to the model that drew it, as labelled."""
    model = make_model()
    experience = stream().train_stream[0]
    model.train()
    model.adaptation(experience)
    criterion, optimizer = FlowGMMLoss(lambda2=10.0), make_optimizer(model, lr=1e-2)
    x = torch.stack([item[0] for item in experience.dataset])
    y = torch.tensor([item[1] for item in experience.dataset])
    for _ in range(60):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    drawn, labels = FlowGenerativeReplayPlugin(pool_size=60).draw_pool(model, [0, 1])
    model.eval()
    assert torch.equal(model.infer_category(model(drawn)), labels)
    # and is nearer to its category's images than to the other's
    means = torch.stack([x[y == category].mean(0) for category in (0, 1)])
    nearest = torch.cdist(drawn, means).argmin(1)
    assert float((nearest == labels).float().mean()) > 0.7  # by chance 0.5
