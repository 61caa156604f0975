import torch

from avalanche_ad.pretraining.painting import KINDS, paint_defects


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_images_change_where_the_mask_is_and_nowhere_else():
    images = torch.rand(64, 3, 32, 32, generator=seeded(1))
    painted, shown = paint_defects(images, 0.5, seeded())
    changed = (painted != images).any(1)
    assert not changed[shown.mask == 0].any()
    assert changed[shown.mask > 0.5].float().mean() > 0.95
    count = int((shown.mask.amax((1, 2)) > 0).sum())
    assert 20 < count < 44
    assert not shown.first.any()
    assert set(shown.second.tolist()) == set(range(1, len(KINDS)))
    again, _ = paint_defects(images, 0.5, seeded())
    assert torch.equal(painted, again)


def test_no_share_paints_nothing():
    images = torch.rand(8, 3, 32, 32, generator=seeded(1))
    painted, shown = paint_defects(images, 0.0, seeded())
    assert torch.equal(painted, images)
    assert not shown.mask.any()


def test_defects_are_small_and_lines_are_thin():
    images = torch.rand(256, 3, 64, 64, generator=seeded(1))
    _, shown = paint_defects(images, 1.0, seeded())
    area = shown.mask.mean((1, 2))
    assert area.max() < 0.5
    lines, spots = area[shown.second == 1], area[shown.second > 1]
    assert lines.mean() < 0.5 * spots.mean()
    assert (area > 0).float().mean() > 0.95
