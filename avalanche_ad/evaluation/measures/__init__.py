"""The metrics, one idea a file: what is found here is found by its name."""
