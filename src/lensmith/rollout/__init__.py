"""A canary release: what it is, what is counted, and when it is over. No network, no files."""
