"""How images are worked on: models, threads, batches, and who is let in."""
