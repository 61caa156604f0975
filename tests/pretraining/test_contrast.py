import math

import pytest
import torch

from pretraining.contrast import Projections, nt_xent


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_its_formula():
    first, second = torch.randn(2, 5, 7, generator=seeded()).unbind()
    rows = torch.cat([first, second])
    rows = rows / rows.norm(dim=1, keepdim=True)
    total = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(math.exp(rows[i] @ rows[k] / 0.5) for k in range(10) if k != i)
        total -= math.log(math.exp(rows[i] @ rows[partner] / 0.5) / others) / 10
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(total, rel=1e-5)


def test_equal_views_of_unlike_images_cost_least():
    one = torch.eye(8)
    least = float(nt_xent(one, one))
    assert least == pytest.approx(math.log(1 + 14 * math.exp(-5)), rel=1e-5)
    assert float(nt_xent(one, one.roll(1, 0))) > least + 4
    # views that tell nothing apart cost the logarithm of the others' number
    same = torch.ones(8, 8)
    assert float(nt_xent(same, same)) == pytest.approx(math.log(15), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_does_not_matter_and_half_precision_hardly(dtype):
    first, second = torch.randn(2, 16, 8, generator=seeded()).unbind()
    found = nt_xent(3 * first.to(dtype), second.to(dtype))
    torch.testing.assert_close(found, nt_xent(first, second), atol=0.02, rtol=0)


@torch.no_grad()
def test_the_loss_of_images_and_of_places_is_their_sum():
    torch.manual_seed(0)
    heads = Projections([6, 4]).eval()
    maps = [torch.randn(6, c, 3, 3, generator=seeded(c)) for c in (6, 4)]
    middle = torch.zeros(3, 1, 2)
    found = heads(maps, (middle, middle))
    pooled = heads.pooled(maps[1].mean((2, 3), keepdim=True)).flatten(1)
    dense = [h(m)[:, :, 1, 1] for h, m in zip(heads.dense, maps, strict=True)]
    expected = nt_xent(pooled[:3], pooled[3:])
    expected += sum(nt_xent(rows[:3], rows[3:]) for rows in dense) / 2
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_places_are_compared_where_they_are():
    """Of a map that moved by three positions, the loss is least at places moved so."""
    torch.manual_seed(0)
    heads = Projections([6]).eval()
    wide = torch.randn(3, 6, 9, 12, generator=seeded())
    maps = torch.cat([wide[..., :9], wide[..., 3:]])
    x, y = torch.tensor([[0.0, 2.0, 4.0], [-2.0, 0.0, 3.0]])

    def loss(moved):
        places = [
            torch.stack([x - by, y], dim=1).expand(3, -1, -1) / 4.5 for by in (0, moved)
        ]
        return float(heads([maps], (places[0], places[1])))

    assert loss(3) < min(loss(moved) for moved in (0, 1, 2, 4))
