"""Processes that listen: one or several, their connections, and their end."""
