"""lensmith: from a folder of labelled images to a fine-tuned classifier and a classification service."""

__version__ = "0.1.0.dev0"
