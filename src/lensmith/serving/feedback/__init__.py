"""Feedback in the service: recorded answers, true labels, and uploads stored for labelling."""
