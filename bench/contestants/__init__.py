"""The ways to train that bench/transfer.py compares, a file each, with one function `run`.

- `task.py` says what is asked of each and how it reports; it imports nothing heavy.
- `shared.py` is what those built on torch have in common, which is no more than the data, the weights and the judge.
"""
