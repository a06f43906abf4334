"""Ground machinery that every room may use: files, cache, machine, credentials, progress."""
