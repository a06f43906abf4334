"""The service: a bundle over HTTP. Level 1 only; never torch."""
