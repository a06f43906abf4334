"""Canary releases in the service: the registry sidecar, the controller that loads models, and the canary split."""
