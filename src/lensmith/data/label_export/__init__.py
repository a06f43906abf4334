"""Annotation formats that are written: labels of pictures, and a bundle's answers as pre-annotations."""
