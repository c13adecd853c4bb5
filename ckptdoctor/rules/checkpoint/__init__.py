"""Rules about the checkpoint."""
