"""An image score that one hot pixel does not decide."""

from __future__ import annotations

from avalanche_ad.models.scores import Score


class TopShare(Score):
    """The likelihood's map; an image's score is the mean of its highest hundredth."""

    name = "top_share"
    maps = ("likelihood",)

    def combine(self, maps):
        return maps["likelihood"]

    def image(self, score_map):
        values = score_map.flatten(1)
        return values.topk(max(1, values.shape[1] // 100), dim=1).values.mean(1)
