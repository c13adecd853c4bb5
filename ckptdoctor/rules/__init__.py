"""Rules: pure functions of the evidence, one file each."""
