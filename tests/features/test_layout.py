import pytest
import torch

from avalanche_ad.features import FeatureLayout

LAYOUT = FeatureLayout(((4, 4, 3), (2, 2, 5)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_unpack_inverts_pack_without_copying(count):
    levels = [torch.rand(count, *level) for level in LAYOUT.levels]
    flat = LAYOUT.flatten(levels)
    assert flat.shape == (count, LAYOUT.size)
    for level, view in zip(levels, LAYOUT.unflatten(flat), strict=True):
        assert torch.equal(level, view)
        assert view.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected levels \(H, W, C\)"):
        LAYOUT.flatten([torch.rand(1, 4, 4, 3)])
    with pytest.raises(ValueError, match=r"shape \(N, 68\)"):
        LAYOUT.unflatten(torch.rand(1, 67))
