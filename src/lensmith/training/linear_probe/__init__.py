"""A head on features that are at hand: solved, not stepped towards."""
