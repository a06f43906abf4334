"""Fine-tuning: our own loop on plain PyTorch."""
