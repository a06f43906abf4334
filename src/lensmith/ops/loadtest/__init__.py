"""Load tests: a service under a load that is said beforehand, and what its callers would have seen."""
