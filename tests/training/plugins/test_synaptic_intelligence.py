"""Synaptic intelligence measures the path of the parameters, on the CPU too."""

import torch
from avalanche.training.plugins import SynapticIntelligencePlugin as Stock

from avalanche_ad.training.plugins import (
    IntraClassWarmupPlugin,
    SynapticIntelligencePlugin,
)


def importances(strategy):
    return {k: v.data for k, v in strategy.plugins[0].ewc_data[1].items()}


def trained(stream, make_strategy, cls, si_lambda=1.0, experiences=1, **options):
    plugin = cls(si_lambda)
    strategy = make_strategy(plugins=[plugin, IntraClassWarmupPlugin(1)], **options)
    for experience in list(stream().train_stream)[:experiences]:
        strategy.train(experience)
    return strategy


def test_avalanches_own_notes_nothing_on_the_cpu(stream, make_strategy):
    strategy = trained(stream, make_strategy, Stock)
    assert all(not value.any() for value in importances(strategy).values())


def test_what_lowered_the_loss_becomes_important(stream, make_strategy):
    strategy = trained(stream, make_strategy, SynapticIntelligencePlugin)
    found = importances(strategy)
    assert set(found) == {name for name, _ in strategy.model.named_parameters()}
    assert all(value.any() for value in found.values())


def test_one_step_by_hand(stream, make_strategy):
    """−Σ g·Δθ / (Δθ² + ε) over a path of one step, at most Avalanche's 0.001."""
    torch.manual_seed(5)
    strategy = make_strategy(
        plugins=[SynapticIntelligencePlugin(1.0)], train_mb_size=24, train_epochs=1
    )
    model, plugin = strategy.model, strategy.plugins[0]
    experience = stream().train_stream[0]
    model.train()
    model.adaptation(experience)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    strategy.train(experience)
    for name, value in model.named_parameters():
        step = (value.detach() - before[name]).flatten()
        path = value.grad.flatten() * step
        expected = (-path / (step.square() + plugin.eps)).clamp(max=1e-3)
        torch.testing.assert_close(plugin.ewc_data[1][name].data, expected)


def test_the_penalty_holds_the_parameters(stream, make_strategy):
    moved = []
    for si_lambda in (0.0, 1e6):
        torch.manual_seed(0)
        strategy = trained(stream, make_strategy, SynapticIntelligencePlugin, si_lambda)
        flows = strategy.model.flows
        before = [value.detach().clone() for value in flows.parameters()]
        strategy.train(stream().train_stream[1])
        pairs = zip(flows.parameters(), before, strict=True)
        moved.append(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert moved[1] < 0.5 * moved[0]
