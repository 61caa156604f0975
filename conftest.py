"""What all tests share, the examples in docstrings too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# One thread a process, before any library counts the cores: several processes test at
# once, and the smallest of networks gain nothing by more.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
MOST_PROCESSES = 8  # each with torch and all else in its memory


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes test: one a core for all tests, else this one alone.

    It is asked for unless ``-n`` gives a number. Whoever names files or folders waits
    longer for processes to start than for the tests.
    """
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if named or config.getoption("write_docs", default=False):
        return 0
    allowed = getattr(os, "sched_getaffinity", None)  # there is none on a Mac
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs commands as processes, or installs a package for that.

    Whole files that are slow say so themselves: ``pytestmark = pytest.mark.slow``.
    """
    for item in items:
        if {"process", "package"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's feature cache and key out of the tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    places = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_AD_CACHE", str(places / "cache"))
        patch.setenv("XDG_STATE_HOME", str(places / "state"))
        # a line is a line, however narrow the terminal of whoever runs the tests
        patch.delenv("FORCE_COLOR", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def example(request: pytest.FixtureRequest) -> None:
    """Give the example of a docstring the same draws and an empty folder."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        torch.manual_seed(0)
        request.getfixturevalue("monkeypatch").chdir(
            request.getfixturevalue("tmp_path")
        )
