"""Annotation formats: files of labelling tools, read and written."""
