"""The run folder: checkpoints, events, plots, its lock, and which run is resumed."""
