"""Rules about the recorded batches."""
