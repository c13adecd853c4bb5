"""Rules that weigh all kinds of evidence together."""
