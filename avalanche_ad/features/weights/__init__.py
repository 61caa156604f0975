"""Files of weights for the backbone ``embedded``: made here, read beside."""
