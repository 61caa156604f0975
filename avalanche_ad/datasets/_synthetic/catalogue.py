"""The fifteen products: how each is drawn and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from avalanche_ad.datasets._synthetic import circuit, metalware, objects, textures
from avalanche_ad.datasets._synthetic.drawing import Draw, Scene

__all__ = ["CATALOGUE"]

Painter = Callable[[int, Draw, str, Draw], Scene]


@dataclass(frozen=True)
class Category:
    """How a category is drawn and what can be wrong with it.

    :param painter: draws one image, with a structural defect if asked.
    :param structural: defects that the painter draws itself.
    :param surface: defects laid over the finished image.
    """

    painter: Painter
    structural: tuple[str, ...]
    surface: tuple[str, ...]

    @property
    def defects(self) -> tuple[str, ...]:
        """All of them, alphabetical."""
        return tuple(sorted(self.structural + self.surface))


CATALOGUE: dict[str, Category] = {
    "bolt": Category(metalware.bolt, ("bent", "worn_thread"), ("scratch", "stain")),
    "brush": Category(
        objects.brush, ("missing_tuft", "splayed_tuft"), ("fibre", "stain")
    ),
    "cable_section": Category(
        objects.cable_section,
        ("cut_insulation", "missing_strand", "wrong_core"),
        ("debris", "hole"),
    ),
    "capsule_print": Category(
        objects.capsule_print, ("misprint", "squeezed"), ("crack", "scratch", "stain")
    ),
    "carpet_weave": Category(
        textures.carpet_weave,
        ("pulled_thread",),
        ("cut_paste", "fibre", "hole", "stain"),
    ),
    "circuit_board": Category(
        circuit.circuit_board,
        ("broken_trace", "missing_part", "missing_pin", "shifted_part"),
        ("debris",),
    ),
    "flask_top": Category(
        objects.flask_top, ("chipped_rim",), ("crack", "debris", "stain")
    ),
    "gear": Category(
        metalware.gear, ("missing_tooth", "worn_tooth"), ("crack", "scratch", "stain")
    ),
    "hazel_shell": Category(
        objects.hazel_shell, (), ("crack", "cut_paste", "hole", "stain")
    ),
    "hex_nut": Category(
        metalware.hex_nut,
        ("broken_corner", "stripped_thread"),
        ("colour_shift", "scratch"),
    ),
    "leather_hide": Category(
        textures.leather_hide, (), ("colour_shift", "dent", "hole", "scratch", "stain")
    ),
    "terrazzo": Category(textures.terrazzo, (), ("crack", "dent", "hole", "stain")),
    "tile_grid": Category(
        textures.tile_grid, ("chip",), ("colour_shift", "crack", "smear", "stain")
    ),
    "wood_plank": Category(
        textures.wood_plank, (), ("cut_paste", "hole", "scratch", "stain")
    ),
    "zip_fastener": Category(
        objects.zip_fastener, ("bent_tooth", "missing_tooth"), ("fibre", "stain")
    ),
}
