"""Rules about the file itself: damage and malice."""
