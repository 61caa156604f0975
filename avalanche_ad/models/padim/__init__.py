"""PaDiM with what neighbours share: densities that know the place."""

from avalanche_ad.models.padim.padim import PaDiM, PaDiMOptions

__all__ = ["PaDiM", "PaDiMOptions"]
