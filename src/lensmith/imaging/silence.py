"""Pillow's warnings and log lines about odd files: what matters of them is in our own errors."""

import logging
import warnings


def silence_pillow() -> None:
    """Keep this process's standard error free of what Pillow and HEIC's decoder write about damaged metadata.

    For processes of our own only: a program that uses lensmith as a library decides for itself.
    """
    warnings.filterwarnings("ignore", module=r"PIL|pillow_heif")
    for name in ("PIL", "pillow_heif"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
