"""Execution of predictions: loaded models, thread pools, dynamic batching, admission control."""
