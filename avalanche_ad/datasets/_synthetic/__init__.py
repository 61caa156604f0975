"""How the procedural data set is drawn: raster, textures, objects, defects."""
