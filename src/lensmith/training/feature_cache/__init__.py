"""Frozen work is never done twice: what a frozen prefix makes of an image is computed once and kept."""
