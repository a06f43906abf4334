"""Images on their way to the network: their order, decoding, augmentation and mixing."""
