"""Tables and figures from results; imports neither torch nor Avalanche."""
