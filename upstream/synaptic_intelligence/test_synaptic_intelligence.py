import unittest

import torch

from avalanche.models import SimpleMLP
from avalanche.training.plugins import SynapticIntelligencePlugin
from avalanche.training.supervised import SynapticIntelligence
from avalanche.training.utils import ParamData
from tests.unit_tests_utils import get_device, get_fast_benchmark


class SynapticIntelligenceTests(unittest.TestCase):
    def test_noted_weights_stay_when_the_model_moves(self):
        model = torch.nn.Linear(3, 2)
        noted = {
            name: ParamData(name, param.flatten().shape)
            for name, param in model.named_parameters()
        }
        SynapticIntelligencePlugin.extract_weights(model, noted, set())
        before = {name: value.data.clone() for name, value in noted.items()}
        with torch.no_grad():
            for param in model.parameters():
                param.add_(1.0)
        for name, value in noted.items():
            self.assertTrue(torch.equal(value.data, before[name]), name)

    def test_importance_grows(self):
        torch.manual_seed(0)
        model = SimpleMLP(input_size=6, hidden_size=10)
        strategy = SynapticIntelligence(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=torch.nn.CrossEntropyLoss(),
            si_lambda=1.0,
            train_mb_size=32,
            device=get_device(),
            evaluator=None,
        )
        strategy.train(get_fast_benchmark().train_stream[0])
        (plugin,) = [
            one
            for one in strategy.plugins
            if isinstance(one, SynapticIntelligencePlugin)
        ]
        importance = torch.cat([v.data.flatten() for v in plugin.ewc_data[1].values()])
        self.assertGreater(float(importance.abs().max()), 0.0)


if __name__ == "__main__":
    unittest.main()
