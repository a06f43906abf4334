"""The network: which backbones there are, where their weights come from, and what of one learns."""
