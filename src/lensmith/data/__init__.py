"""Labelled images on disk: reading layouts, checking files, splitting, fetching known sets."""
