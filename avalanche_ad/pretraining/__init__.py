"""Train the backbone that the package carries: ``python -m avalanche_ad.pretraining``.

photographs → augmentation → network → training → export: one file each.
"""
