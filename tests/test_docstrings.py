"""Every public class shows by an example what it does; pytest runs the examples."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import avalanche_ad

ROOT = Path(avalanche_ad.__file__).parent


def public_classes(source: str) -> Iterator[ast.ClassDef]:
    """Yield the classes that a module lists in ``__all__``, but for exceptions."""
    tree = ast.parse(source)
    listed: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = set(ast.literal_eval(node.value))
    for node in tree.body:
        shown = isinstance(node, ast.ClassDef) and node.name in listed
        if shown and not node.name.endswith(("Error", "Warning")):
            yield node


def has_example(node: ast.ClassDef) -> bool:
    return ">>> " in (ast.get_docstring(node) or "")


EVERY = [
    (path.relative_to(ROOT).as_posix(), node)
    for path in sorted(ROOT.rglob("*.py"))
    for node in public_classes(path.read_text("utf-8"))
]


def test_every_public_class_has_an_example():
    lack = [f"{path}: {node.name}" for path, node in EVERY if not has_example(node)]
    assert not lack, "write an example (>>>) in the docstring of " + "; ".join(lack)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("__all__ = ['A']\nclass A: ...\nclass B: ...", ["A"]),
        ("__all__ = ['AError', 'AWarning']\nclass AError(Exception): ...", []),
        ("class A: ...", []),
    ],
)
def test_public_is_what_a_module_lists(source, names):
    assert [node.name for node in public_classes(source)] == names


def test_an_example_is_seen():
    shown, plain = public_classes(
        "__all__ = ['A', 'B']\n"
        "class A:\n    '''Do.\n\n    >>> A()\n    '''\n"
        "class B:\n    '''Do.'''\n"
    )
    assert has_example(shown)
    assert not has_example(plain)
