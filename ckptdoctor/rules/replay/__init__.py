"""Rules about the replay."""
