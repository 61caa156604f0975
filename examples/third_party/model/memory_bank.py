"""A memory bank: the distance to the nearest vectors kept of a category's normals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avalanche_ad.models import (
    MASKED,
    AnomalyModel,
    CategoryTable,
    ModelOptions,
    attach_latents,
    by_category,
)


class MemoryBankOptions(ModelOptions):
    """``[model]`` of type ``memory_bank``."""

    vectors: int = 200


class MemoryBank(AnomalyModel):
    """Keep some vectors of every category, and measure the distance to the nearest."""

    kind = "memory_bank"
    Options = MemoryBankOptions
    maps = ("distance",)
    trained = False
    memory_kind = "exemplars"

    def __init__(self, layout, num_categories=0, *, seed=0, vectors=200, **options):
        super().__init__(layout, **options)
        self.seed, self.vectors = seed, vectors
        self.banks = nn.ModuleList()
        for _, _, channels in layout.levels:
            bank = CategoryTable()
            bank.add_table("rows", vectors, channels)
            self.banks.append(bank)
        self.resize(num_categories)

    @property
    def num_categories(self):
        return self.banks[0].num_categories

    @property
    def known_categories(self):
        return self.banks[0].categories

    def resize(self, num_categories):
        for bank in self.banks:
            bank.resize(num_categories)

    def fit_experience(self, batches):
        for category, x in by_category(batches).items():
            generator = torch.Generator().manual_seed(self.seed + category)
            for bank, level in zip(self.banks, self.layout.unflatten(x), strict=True):
                rows = level.flatten(0, 2)
                drawn = torch.randint(len(rows), (self.vectors,), generator=generator)
                bank.set_rows(category, rows=rows[drawn.to(rows.device)])

    def forward(self, x: Tensor) -> Tensor:
        known, levels = self.known_categories, []
        features = self.layout.unflatten(self.features_of(x))
        for bank, level in zip(self.banks, features, strict=True):
            nearest = [
                torch.cdist(level.flatten(1, 2), bank.rows[c]).amin(2) for c in known
            ]
            levels.append(torch.stack(nearest, -1).view(*level.shape[:3], len(known)))
        output = x.new_full((len(x), self.num_categories), MASKED)
        output[:, known] = -sum(level.mean((1, 2)) for level in levels)
        return attach_latents(output, levels)

    def normality_levels(self, name, latents, category):
        row = torch.searchsorted(self.known_categories, category)
        return [-level[torch.arange(len(row)), :, :, row] for level in latents]
