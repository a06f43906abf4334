"""Canary releases: what a rollout is, what is counted, how the guards assess it, and how it ends."""
