"""What others see of the service: measurements and log lines."""

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus_client is told, before it is imported, of the folder that all processes
share."""
