import os
import tempfile
import unittest

import torch

from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.models import SimpleMLP
from avalanche.training.supervised import Naive
from tests.unit_tests_utils import get_device, get_fast_benchmark


class CheckpointOptimizersTests(unittest.TestCase):
    def make_strategy(self, optimizer):
        model = SimpleMLP(input_size=6, hidden_size=10)
        return Naive(
            model=model,
            optimizer=optimizer(model.parameters(), lr=0.01),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=32,
            device=get_device(),
            evaluator=None,
        )

    def test_every_optimizer_is_saved_and_loaded(self):
        experience = get_fast_benchmark().train_stream[0]
        for optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
            with self.subTest(optimizer.__name__):
                strategy = self.make_strategy(optimizer)
                strategy.train(experience)
                with tempfile.TemporaryDirectory() as folder:
                    name = os.path.join(folder, "checkpoint.pt")
                    save_checkpoint(strategy, name)
                    loaded, experiences = maybe_load_checkpoint(
                        self.make_strategy(optimizer), name
                    )
                self.assertEqual(experiences, 1)
                self.assertIs(type(loaded.optimizer), optimizer)
                for one, other in zip(
                    strategy.model.parameters(), loaded.model.parameters()
                ):
                    self.assertTrue(torch.equal(one, other))


if __name__ == "__main__":
    unittest.main()
