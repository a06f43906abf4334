"""The image contract: from encoded bytes to model input, one way for training, evaluation and serving."""
