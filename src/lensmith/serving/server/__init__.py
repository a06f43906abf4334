"""Server processes: one or several, their connections, and graceful shutdown."""
