"""`python -m lensmith` is the same as `lensmith`."""

from lensmith.cli import main

main()
