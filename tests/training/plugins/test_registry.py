"""Plugins by the name of their class, by an entry point, or by a dotted path."""

from __future__ import annotations

import pytest

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.configuration import run_configuration
from avalanche_ad.recipes import load_experiment
from avalanche_ad.registry import registry
from avalanche_ad.training import plugins
from avalanche_ad.training.plugins.registry import PLUGINS

THEIRS = """\
from avalanche.core import SupervisedPlugin


class Theirs(SupervisedPlugin):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size
"""


@pytest.fixture
def learner(tmp_path):
    def write(*kinds):
        path = tmp_path / "own.toml"
        parts = [f'[[plugins]]\ntype = "{kind}"\n' for kind in kinds]
        path.write_text('title = "Own"\nsummary = "Own."\n' + "".join(parts))
        return load_experiment("synthetic_2x2", str(path))

    return write


def test_every_exported_plugin_has_its_class_name():
    found = PLUGINS.own
    assert set(plugins.__all__) <= set(found)
    for name, made in found.items():
        assert made.__name__ == name
        assert PLUGINS.find(name) is made


def test_a_recipe_names_a_plugin_by_its_class(learner):
    check_strategy(learner("FrozenFlowPlugin"))
    with pytest.raises(RecipeError, match=r"'FrozenFlow' \(did you mean 'FrozenFlowPl"):
        check_strategy(learner("FrozenFlow"))


def test_plugins_of_avalanche_go_by_their_path(learner):
    with pytest.raises(
        RecipeError, match="unknown plugin 'ReplayPlugin'.* dotted path"
    ):
        check_strategy(learner("ReplayPlugin"))
    with pytest.raises(
        RecipeError, match="'avalanche.training.plugins.BiCPlugin' cann"
    ):
        check_strategy(learner("avalanche.training.plugins.BiCPlugin"))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install packages, each with entry points for plugins."""

    def install(package, points):
        about = tmp_path / "site" / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[avalanche_ad.plugins]\n{points}\n")

    (tmp_path / "site").mkdir()
    (tmp_path / "site/their_plugins.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return install


def test_another_packages_plugin_goes_by_its_entry_point(learner, installed):
    installed("theirs", "theirs = their_plugins:Theirs\ngone = nowhere_at_all:Gone")
    check_strategy(learner("theirs"))
    assert PLUGINS.origin("theirs") == "theirs"
    assert PLUGINS.origin("FrozenFlowPlugin") == ""
    with pytest.raises(RecipeError, match="plugin 'gone' of theirs.* no module"):
        check_strategy(learner("gone"))
    installed("again", "theirs = their_plugins:Theirs")
    with pytest.raises(RecipeError, match="'theirs' is offered by .* dotted path"):
        check_strategy(learner("theirs"))


def test_installed_packages_are_read_again_only_where_a_folder_changed(
    tmp_path, monkeypatch
):
    read = []
    monkeypatch.setattr(
        registry, "entry_points", lambda group: read.append(group) or ()
    )
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(3):
        PLUGINS.find("FrozenFlowPlugin")
    assert read == ["avalanche_ad.plugins"]
    (tmp_path / "new").mkdir()
    PLUGINS.find("FrozenFlowPlugin")
    assert len(read) == 2


def test_options_that_plugins_share_are_recorded_once_under_short_names(learner):
    names = ("StatisticsRehearsalPlugin", "GMMAlignmentPlugin")
    both = [kind + '"\ncomponents = 3\n# "' for kind in names]
    recorded = run_configuration(learner(*both), None)["strategy"]["plugins"]
    assert recorded == [{"type": names[0], "components": 3}, {"type": names[1]}]
