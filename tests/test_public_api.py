import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import avalanche_ad

SOURCE = Path(avalanche_ad.__file__)


@pytest.mark.parametrize("name", avalanche_ad.__all__)
def test_every_public_name_is_its_modules_own(name):
    value = getattr(avalanche_ad, name)
    if name == "__version__":
        return
    assert value.__name__ == name
    assert value.__module__.startswith("avalanche_ad.")
    assert inspect.getdoc(value)


def test_names_for_type_checkers_and_for_python_are_the_same():
    tree = ast.parse(SOURCE.read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module.removeprefix("avalanche_ad.")
        for node in block.body
        for alias in node.names
    }
    assert typed == avalanche_ad._MODULES
    assert sorted({*typed, "__version__"}) == sorted(avalanche_ad.__all__)
    assert set(avalanche_ad.__all__) <= set(dir(avalanche_ad))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'avalanche_ad' has no attribute 'magic'"):
        avalanche_ad.magic  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'magic'"):
        from avalanche_ad import magic  # noqa: F401


def test_the_version_is_a_literal_that_the_build_can_read():
    found = re.search(r'^__version__ = "([^"]+)"$', SOURCE.read_text("utf-8"), re.M)
    assert found
    assert found[1] == avalanche_ad.__version__ == version("avalanche-ad")
