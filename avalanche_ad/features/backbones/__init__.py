"""The frozen backbones, a file each."""
