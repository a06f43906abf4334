"""Experiment tracking: runs sent to MLflow while they train. MLflow is imported when it is used."""
