"""What all tests share, the examples in docstrings too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts commands as processes of their own.

    Whole files that are slow say so themselves: ``pytestmark = pytest.mark.slow``.
    """
    for item in items:
        if "process" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's feature cache and key out of the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    places = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_AD_CACHE", str(places / "cache"))
        patch.setenv("XDG_STATE_HOME", str(places / "state"))
        patch.setenv("OMP_NUM_THREADS", "1")
        # a line is a line, however narrow the terminal of whoever runs the tests
        patch.delenv("FORCE_COLOR", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def example(request: pytest.FixtureRequest) -> None:
    """Give the example of a docstring the same draws and an empty folder."""
    if isinstance(request.node, pytest.DoctestItem):
        torch.manual_seed(0)
        request.getfixturevalue("monkeypatch").chdir(
            request.getfixturevalue("tmp_path")
        )
