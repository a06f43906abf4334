"""Feedback: stored uploads and their true labels, as the next training's data set."""
