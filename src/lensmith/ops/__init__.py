"""Operations: deployment files, load tests, the check of this machine, tokens."""
