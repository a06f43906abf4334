"""Labelled images on disk: folder layouts, data check, train/val/test split, download of known data sets."""
