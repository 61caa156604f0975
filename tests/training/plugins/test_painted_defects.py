import pytest
import torch
from avalanche.training.supervised import Cumulative, JointTraining, Naive

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.errors import TrainingError
from avalanche_ad.features import FeatureCache, FilterBank
from avalanche_ad.models import ContextFlowGMM, FeatureGMM
from avalanche_ad.training import dynamic
from avalanche_ad.training.plugins import PaintedDefectsPlugin

SMALL = {
    "couplings": 1,
    "hidden": 4,
    "head": 4,
    "critic": 4,
    "condition_channels": 4,
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    counts = {"train_images": 4, "test_normals": 1, "test_anomalies": 1}
    data = SyntheticAD(80, categories=["bolt", "gear", "brush"], **counts)
    return anomaly_benchmark(
        data,
        experiences=[["bolt", "gear"], ["brush"]],
        image_size=80,
        backbone=FilterBank([8]),
        cache=FeatureCache(tmp_path_factory.mktemp("cache")),
        painted=True,
    )


@pytest.fixture
def seen(monkeypatch):
    """Note what every step is given."""
    calls = []
    own = ContextFlowGMM.defect_loss

    def noted(self, x, target, defects, where):
        calls.append((x, target, defects, where))
        return own(self, x, target, defects, where)

    monkeypatch.setattr(ContextFlowGMM, "defect_loss", noted)
    return calls


def made(benchmark, cls=Naive, plugins=(), epochs=2):
    torch.manual_seed(0)
    model = dynamic(ContextFlowGMM)(benchmark.layout, **SMALL)
    return cls(
        model=model,
        optimizer=torch.optim.Adam(model.parameter_groups(1e-3, 0.0), 1e-3),
        criterion=model.criterion(),
        train_mb_size=3,
        train_epochs=epochs,
        plugins=[PaintedDefectsPlugin(), *plugins],
        evaluator=None,
    )


def rows_of(benchmark):
    """Return the features of each category's painted images."""
    found = {}
    for experience in benchmark.train_stream:
        for x, y, _, mask in experience.painted:
            found.setdefault(y, []).append((x, mask))
    return found


def test_each_image_is_told_from_a_painted_one_of_its_category(benchmark, seen):
    strategy = made(benchmark)
    painted = rows_of(benchmark)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert sum(len(x) for x, *_ in seen) == 2 * (8 + 4)
    drawn = set()
    for x, target, defects, where in seen:
        assert len(x) == len(target) == len(defects) == len(where)
        for row, category in enumerate(target.tolist()):
            matching = [
                number
                for number, (features, mask) in enumerate(painted[category])
                if torch.equal(features, defects[row]) and torch.equal(mask, where[row])
            ]
            assert len(matching) == 1
            drawn.add((category, *matching))
    assert len(drawn) > 8
    assert strategy.plugins[0].images == {}


def critics(model):
    state = model.categories["0"].state_dict()
    return {name: value for name, value in state.items() if "critics" in name}


def test_it_trains_the_critics_and_nothing_else_more(benchmark):
    with_defects, without = (made(benchmark) for _ in range(2))
    without.plugins[:] = [
        one for one in without.plugins if not isinstance(one, PaintedDefectsPlugin)
    ]
    before = made(benchmark)
    for strategy in (with_defects, without):
        strategy.train(benchmark.train_stream[0])
    before.model.add_categories(
        [0, 1],
        {
            c: torch.stack(
                [x for x, y, _ in benchmark.train_stream[0].dataset if y == c]
            )
            for c in (0, 1)
        },
    )
    start = critics(before.model)
    for strategy, moves in ((with_defects, True), (without, False)):
        now = critics(strategy.model)
        moved = any(not torch.equal(now[name], start[name]) for name in now)
        assert moved is moves


@pytest.mark.parametrize("cls", [Cumulative, JointTraining])
def test_other_strategies_take_it(benchmark, seen, cls):
    strategy = made(benchmark, cls, epochs=1)
    if cls is JointTraining:
        strategy.train(benchmark.train_stream)
        assert {c for _, y, *_ in seen for c in y.tolist()} == {0, 1, 2}
        return
    for experience in benchmark.train_stream:
        seen.clear()
        strategy.train(experience)
    # images of earlier experiences come without painted ones
    assert {c for _, y, *_ in seen for c in y.tolist()} == {2}


def test_a_stream_without_painted_images_is_refused(benchmark, tmp_path):
    counts = {"train_images": 2, "test_normals": 1, "test_anomalies": 1}
    data = SyntheticAD(80, categories=["bolt"], **counts)
    options = {"backbone": FilterBank([8]), "cache": FeatureCache(tmp_path)}
    plain = anomaly_benchmark(data, n_experiences=1, image_size=80, **options)
    with pytest.raises(TrainingError, match="make it with painted=True"):
        made(benchmark).train(plain.train_stream[0])


def test_a_model_that_does_not_learn_from_them_says_so(benchmark):
    model = dynamic(FeatureGMM)(benchmark.layout)
    x = torch.zeros(1, benchmark.layout.size)
    with pytest.raises(TrainingError, match="FeatureGMM does not learn from painted"):
        model.defect_loss(x, torch.zeros(1), x, x)
