"""The step as a transaction: chunks, memory, BatchNorm, votes; it knows nothing of images and run folders."""
