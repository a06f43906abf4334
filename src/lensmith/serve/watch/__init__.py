"""What others see of the service: measurements and log lines."""
