import pytest
import torch

from avalanche_ad.training.plugins import GradientClippingPlugin


def norm(strategy):
    gradients = [p.grad for p in strategy.model.parameters() if p.grad is not None]
    return float(torch.stack([g.norm() for g in gradients]).norm())


def test_the_norm_of_all_gradients_together_is_bounded(stream, make_strategy, probe):
    free, bound = probe("after_backward", norm), probe("before_update", norm)
    plugin = GradientClippingPlugin(max_norm=5.0)
    strategy = make_strategy(plugins=[free, plugin, bound])
    strategy.train(stream().train_stream[0])
    assert min(free.seen) < max(free.seen)
    assert max(free.seen) > 10  # there was something to clip
    for before, after in zip(free.seen, bound.seen, strict=True):
        assert after == pytest.approx(min(before, 5.0), rel=1e-4)
