"""Rules about the run's checkpoints over time."""
