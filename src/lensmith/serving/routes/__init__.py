"""Routes, one protocol per file."""
