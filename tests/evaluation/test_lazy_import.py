import subprocess
import sys

import pytest

import avalanche_ad.evaluation as evaluation


def test_public_names_are_found():
    assert all(getattr(evaluation, name) is not None for name in evaluation.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        evaluation.nothing  # noqa: B018


def test_the_pure_functions_import_neither_avalanche_nor_torch():
    script = (
        "import sys, avalanche_ad.evaluation.registry\n"
        "print([name for name in ('avalanche', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
