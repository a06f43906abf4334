"""Workflows that join rooms: train and export, distillation, the pipeline, the demo."""
