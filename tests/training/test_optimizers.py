import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.training import make_optimizer, warmup_cosine


def test_groups_are_flows_centres_and_weights(make_model):
    model = make_model()
    optimizer = make_optimizer(model, lr=0.1, weight_decay=0.01, centers_lr_factor=3.0)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {name_of[id(parameter)] for parameter in group["params"]}
        for group in optimizer.param_groups
    ]
    assert all(name.startswith("flows.") for name in groups[0])
    assert groups[1] == {"mixtures.0.centers", "mixtures.1.centers"}
    assert groups[2] == {
        f"mixtures.{level}.{kind}_logits"
        for level in (0, 1)
        for kind in ("class", "inner")
    }
    assert set().union(*groups) == set(name_of.values())
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0, 0]
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.3, 0.1])
    assert all(group["betas"] == (0.95, 0.99) for group in optimizer.param_groups)


def test_any_module_gets_one_group():
    optimizer = make_optimizer(torch.nn.Linear(2, 2))
    assert len(optimizer.param_groups) == 1
    assert optimizer.param_groups[0]["lr"] == 2e-4


steps = st.integers(1, 500).flatmap(
    lambda total: st.tuples(st.just(total), st.integers(0, total - 1))
)


@given(steps=steps, final=st.floats(0, 1))
def test_schedule_rises_to_one_then_falls(steps, final):
    total, warmup = steps
    factors = [warmup_cosine(step, total, warmup, final) for step in range(total + 3)]
    assert all(0 < factor <= 1 for factor in factors[:total])
    rising, falling = factors[: warmup + 1], factors[warmup:]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a >= b - 1e-12 for a, b in zip(falling, falling[1:], strict=False))
    assert factors[warmup] == pytest.approx(1.0)
    assert factors[total] == pytest.approx(final)
    assert factors[-1] == pytest.approx(final)


def test_schedule_by_hand():
    found = [warmup_cosine(step, 8, 4) for step in range(8)]
    half = 0.5**0.5
    expected = [0.2, 0.4, 0.6, 0.8, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert found == pytest.approx(expected)
