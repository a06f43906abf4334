"""Active learning: uploads that a service stored for labelling, and their export as the next training's data set."""
