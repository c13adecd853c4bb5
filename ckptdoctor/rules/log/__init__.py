"""Rules about the training log."""
