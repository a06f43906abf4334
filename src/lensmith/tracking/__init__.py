"""Runs written down in MLflow, beside the training. MLflow is imported when it is used."""
