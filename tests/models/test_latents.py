import torch

from avalanche_ad.models.latents import attach_latents, latents_of


def test_latents_ride_on_one_tensor_alone():
    output = torch.zeros(2, 3)
    assert latents_of(output) is None
    mark = object()
    assert attach_latents(output, mark) is output
    assert latents_of(output) is mark
    assert latents_of(output[:, :2]) is None
    assert latents_of(output + 0) is None
