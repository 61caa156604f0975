import dataclasses
from functools import partial

import pytest
import torch
from torch.nn.functional import grid_sample

from avalanche_ad.errors import RecipeError, ResultsError
from avalanche_ad.features import EmbeddedBackbone
from avalanche_ad.features.backbones.embedded import Columns
from avalanche_ad.features.residual_trunk import ResidualArchitecture
from avalanche_ad.features.weights.export import export
from pretraining.network import Classifier, folded_trunk
from pretraining.photographs import read_photographs
from pretraining.training import (
    MEAN,
    STD,
    Settings,
    autocast_dtype,
    draw_batch,
    train,
)

pytestmark = pytest.mark.slow

SIZES = ResidualArchitecture(8, (8, 8, 16), (1, 1, 2))
write = partial(export, mean=MEAN, std=STD)
SETTINGS = Settings(
    SIZES,
    4,
    28,
    size=24,
    first_size=16,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photographs(folder):
    return read_photographs(folder, 24)


def trained(photographs, out, settings=SETTINGS, **options):
    return train(photographs, settings, out, device=CPU, dtype=torch.float32, **options)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("views", [1, 2])
def test_resumed_after_a_kill_it_ends_at_the_same_weights(photographs, tmp_path, views):
    settings = SETTINGS if views == 1 else CONTRAST
    whole, rows = trained(photographs, tmp_path / "whole", settings)

    def kill(done, total):
        if done == total // 2 + 1:  # within the third of four epochs
            raise KilledError

    with pytest.raises(KilledError):
        trained(photographs, tmp_path / "killed", settings, progress=kill)
    steps = []
    resumed, again = trained(
        photographs,
        tmp_path / "killed",
        settings,
        progress=lambda done, total: steps.append(done / total),
    )
    assert steps[0] > 0.5
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert [row["loss"] for row in rows] == [row["loss"] for row in again]


CONTRAST = dataclasses.replace(SETTINGS, contrast=1.0)


def test_two_views_of_each_image_show_the_same_at_their_places():
    axis = torch.arange(24) * 10.0
    image = torch.stack([axis.expand(24, 24), axis[:, None].expand(24, 24)])
    image = torch.cat([image, image.mean(0, keepdim=True)]).to(torch.uint8)
    images, labels = image.expand(40, -1, -1, -1), torch.arange(40)

    def drawn(**change):
        settings = dataclasses.replace(CONTRAST, colour=0.0, **change)
        return draw_batch(
            images, labels, settings, 24, torch.Generator().manual_seed(0)
        )

    batch = drawn()
    assert batch.views.shape == (80, 3, 24, 24)
    assert 0 <= float(batch.views.min()) < 0.1 < 0.8 < float(batch.views.max()) <= 1
    assert torch.equal(batch.labels, labels.repeat(2))
    assert len(batch.views.flatten(1).unique(dim=0)) > 70
    one, two = (
        grid_sample(
            views, place[:, :, None], padding_mode="border", align_corners=False
        )
        for views, place in zip(batch.views.chunk(2), batch.places, strict=True)
    )
    torch.testing.assert_close(one, two, atol=0.03, rtol=0)
    assert torch.equal(drawn().views, batch.views)
    assert len(drawn(contrast=0.0).views) == 40
    assert drawn(contrast=0.0).places is None


def test_colour_says_how_much_colours_change(photographs):
    images, labels = photographs.select(held_out=False)
    views = [
        draw_batch(
            images,
            labels,
            dataclasses.replace(CONTRAST, colour=colour),
            24,
            torch.Generator().manual_seed(0),
        ).views
        for colour in (0.0, 0.1, 0.4)
    ]
    less, more = ((one - views[0]).abs().mean() for one in views[1:])
    assert 0 < 2 * float(less) < float(more)


def test_without_labels_the_network_learns_from_views_alone(photographs, tmp_path):
    settings = dataclasses.replace(CONTRAST, labels=False, epochs=8, lr=1e-2)
    model, _ = trained(photographs, tmp_path / "a", settings)
    mixed = dataclasses.replace(
        photographs, labels=photographs.labels.roll(1), held_out=photographs.held_out
    )
    other, _ = trained(mixed, tmp_path / "b", settings)
    for (key, value), same in zip(
        model.network.state_dict().items(),
        other.network.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(value, same), key
    # scales of normalisation do not decay: without a gradient they would stay at 1
    vectors = [p.detach() for p in model.network.parameters() if p.dim() == 1]
    scales = [vector for vector in vectors if bool((vector > 0.5).all())]
    assert scales
    assert all(float((scale - 1).abs().max()) > 1e-3 for scale in scales)
    # the classifier does learn from them
    assert not torch.equal(model.head.weight, other.head.weight)


def test_nothing_to_learn_from_is_told():
    with pytest.raises(RecipeError, match="--no-labels"):
        dataclasses.replace(SETTINGS, labels=False)


def test_it_learns(photographs, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=25, lr=1e-2)
    _, rows = trained(photographs, tmp_path, settings)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["train_accuracy"] > 0.6


def test_another_seed_gives_other_weights(photographs, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    other = dataclasses.replace(settings, seed=1)
    first, _ = trained(photographs, tmp_path / "a", settings)
    second, _ = trained(photographs, tmp_path / "b", other)
    assert not torch.equal(first.head.weight, second.head.weight)


def test_a_folder_of_other_settings_is_refused(photographs, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    trained(photographs, tmp_path, settings)
    with pytest.raises(ResultsError, match="training of other settings"):
        trained(photographs, tmp_path, dataclasses.replace(settings, lr=1e-3))
    (tmp_path / "checkpoint.pt").write_bytes(b"cut")
    with pytest.raises(ResultsError, match="damaged; delete it"):
        trained(photographs, tmp_path, settings)


def test_too_large_a_batch_is_refused(photographs, tmp_path):
    settings = dataclasses.replace(SETTINGS, batch_size=91)
    with pytest.raises(RecipeError, match="--batch-size 91 is more than"):
        trained(photographs, tmp_path, settings)


def test_an_image_s_logits_are_the_mean_over_positions():
    model = Classifier(SIZES, 3).eval()
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits, contrast = model(images)
        expected = model.head(stages(model, images)[-1]).mean((2, 3))
    torch.testing.assert_close(logits, expected)
    assert float(contrast) == 0


def stages(model, images):
    x = model.network.stem(images)
    maps = []
    for stage in model.network.stages:
        x = stage(x)
        maps.append(x)
    return maps


def test_folding_changes_no_map(photographs, tmp_path):
    model, _ = trained(photographs, tmp_path)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        folded = folded_trunk(model)(images)
        expected = stages(model.eval(), images)
    for one, other in zip(folded, expected, strict=True):
        # the folded network gives a map before its last rectifier
        torch.testing.assert_close(one.relu(), other, rtol=1e-4, atol=1e-4)


def test_an_exported_file_gives_the_network_s_features(photographs, tmp_path):
    model, _ = trained(photographs, tmp_path)
    images, _ = photographs.select(held_out=False)
    path = tmp_path / "own.safetensors"
    columns = Columns((2, 4), window=1, filters=False, channels=0)
    card = {"seed": 0}
    trunk = folded_trunk(model)
    write(trunk, images, path, columns=columns, strides=(4,), card=card)
    backbone = EmbeddedBackbone(weights=path, whiten=False)
    assert backbone.card == card
    views = images.float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    with torch.no_grad():
        fine, coarse = stages(model.eval(), (views - mean) / std)[:2]
    (level,) = backbone(views)
    # filters are kept as float16; a level is taken before the rectifier
    found = level[..., 8:].permute(0, 3, 1, 2)
    torch.testing.assert_close(found.relu(), coarse, rtol=2e-2, atol=2e-2)
    assert (found < 0).any()
    found = level[..., :8].permute(0, 3, 1, 2)
    assert (found <= torch.nn.functional.avg_pool2d(fine, 2) + 2e-2).all()


@pytest.mark.parametrize("channels", [0, 5])
def test_levels_are_white_over_the_photographs(photographs, tmp_path, channels):
    images, _ = photographs.select(held_out=False)
    path = tmp_path / "own.safetensors"
    trunk = folded_trunk(Classifier(SIZES, 2))
    columns = Columns((4, 8), filters=True, channels=channels)
    write(trunk, images, path, columns=columns, strides=(4, 8), card={})
    tiled = torch.cat([images, images.flip(2)], 2)
    tiled = torch.cat([tiled, tiled.flip(3)], 3)
    tiled = torch.cat([tiled, tiled.flip(2)], 2)
    tiled = torch.cat([tiled, tiled.flip(3)], 3) / 255
    for level in EmbeddedBackbone(weights=path)(tiled):
        rows = level.flatten(0, 2)
        assert rows.shape[1] == (channels or 8 + 16 + 45)
        assert rows.mean(0).abs().max() < 0.05
        assert 0.6 < rows.std(0).mean() < 1.1  # what hardly varies is shrunk
        if channels:
            others = torch.corrcoef(rows.T).fill_diagonal_(0)
            assert others.abs().max() < 0.05


@pytest.mark.parametrize("strides", [(), (3,), (8, 4), (32,)])
def test_strides_that_are_not_there_are_refused(strides, tmp_path):
    model = Classifier(SIZES, 2)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(RecipeError, match=r"rising numbers out of \[4, 8, 16\]"):
        write(
            folded_trunk(model),
            images,
            tmp_path / "own.safetensors",
            columns=Columns((4, 8), filters=True, channels=0),
            strides=strides,
            card={},
        )


def test_precision_is_chosen_by_name():
    assert autocast_dtype("float32", CPU) == torch.float32
    assert autocast_dtype("bfloat16", CPU) == torch.bfloat16
    assert autocast_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(RecipeError, match="expected auto, bfloat16 or float32"):
        autocast_dtype("half", CPU)


def test_widths_that_timm_would_round_are_refused():
    with pytest.raises(RecipeError, match="--channels has 12"):
        Settings(ResidualArchitecture(8, (12, 16), (1, 1)))


def test_views_grow_to_the_full_size():
    settings = Settings(epochs=16, size=64, first_size=32)
    sizes = [settings.view_size(epoch) for epoch in range(16)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (32, 64)
    assert len(set(sizes)) == 5
    assert Settings(epochs=1, size=20, first_size=20).view_size(0) == 20
