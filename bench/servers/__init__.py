"""Servers that bench/serve.py compares, one per file, and the code that starts them."""
