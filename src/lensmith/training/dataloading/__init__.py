"""Data loading: sampling, decoding, augmentation, MixUp and prefetch of training images."""
