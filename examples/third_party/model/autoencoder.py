"""A reconstruction network: what it cannot rebuild of the features is anomalous."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avalanche_ad.models import (
    MASKED,
    AnomalyModel,
    CategoryTable,
    ModelOptions,
    attach_latents,
    latents_of,
)


class AutoencoderOptions(ModelOptions):
    """``[model]`` of type ``autoencoder``."""

    width: int = 16


class Autoencoder(AnomalyModel):
    """One bottleneck a level and category; the error is what it does not rebuild."""

    kind = "autoencoder"
    Options = AutoencoderOptions
    maps = ("error",)

    def __init__(self, layout, num_categories=0, *, seed=0, width=16, **options):
        super().__init__(layout, **options)
        self.bottlenecks = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _, _, channels in layout.levels:
                table = CategoryTable()
                table.add_table("down", channels, width, blank=0.0, trained=True)
                table.register_buffer("start", torch.randn(channels, width) / channels)
                self.bottlenecks.append(table)
        self.resize(num_categories)

    @property
    def num_categories(self):
        return self.bottlenecks[0].num_categories

    @property
    def known_categories(self):
        return self.bottlenecks[0].categories

    def resize(self, num_categories):
        for table in self.bottlenecks:
            table.resize(num_categories)

    def add_categories(self, categories, features=None):
        known = set(self.known_categories.tolist())
        for category in sorted(set(categories) - known):
            for table in self.bottlenecks:
                table.set_rows(category, down=table.start)

    def forward(self, x: Tensor) -> Tensor:
        known, levels = self.known_categories, []
        features = self.layout.unflatten(self.features_of(x))
        for table, level in zip(self.bottlenecks, features, strict=True):
            down = table.down[known]
            code = torch.einsum("nhwd,cdk->nhwck", level, down)
            rebuilt = torch.einsum("nhwck,cdk->nhwcd", code, down)
            levels.append((level[..., None, :] - rebuilt).square().mean(-1))
        output = x.new_full((len(x), self.num_categories), MASKED)
        near = -torch.stack([level.mean((1, 2)) for level in levels]).sum(0)
        return attach_latents(output.index_copy(1, known, near), (levels, known))

    def normality_levels(self, name, latents, category):
        levels, known = latents
        row = torch.searchsorted(known, category)
        return [-level[torch.arange(len(row)), :, :, row] for level in levels]

    def loss(self, output, target):
        levels, known = latents_of(output)
        row = torch.searchsorted(known, target)
        return sum(
            level[torch.arange(len(row)), :, :, row].mean((1, 2)) for level in levels
        )
