"""Micro-batch step: gradient accumulation in chunks, out-of-memory retry, ghost batch norm, and ranks."""
