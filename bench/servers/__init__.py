"""Servers that bench/serve.py compares, a file each, and what starts them."""
