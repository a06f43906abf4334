"""The ways to train that bench/transfer.py compares, a file each, with one function `run`.

- `task.py` describes the job and how results are reported; it imports nothing heavy.
- `shared.py` is common to those built on torch: data, weights and the final accuracy, and no more.
"""
