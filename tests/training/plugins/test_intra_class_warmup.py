import pytest

from avalanche_ad.training.plugins import IntraClassWarmupPlugin


@pytest.mark.parametrize(
    ("warmup", "epochs", "expected"),
    [
        (2, 4, [False, False, True, True]),
        (0, 2, [True, True]),
        (2, 2, [False, True]),
        (2, 1, [True]),
        (5, 3, [False, False, True]),
    ],
)
def test_inner_mixture_joins_after_the_first_epochs_of_each_experience(
    stream, make_strategy, probe, warmup, epochs, expected
):
    seen = probe("before_training_iteration", lambda s: s._criterion.intra)
    strategy = make_strategy(
        plugins=[IntraClassWarmupPlugin(warmup), seen],
        train_epochs=epochs,
        train_mb_size=100,
    )
    for experience in stream().train_stream:
        strategy.train(experience)
    assert seen.seen == 2 * expected
