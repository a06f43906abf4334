"""Models: the backbones there are, where their weights come from, and which of their layers are trained."""
