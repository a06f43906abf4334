"""What the service answers at which address, one protocol a file."""
