"""How good a model is: numbers from labels and probabilities, a run over labelled images, and the report of both."""
