"""Post-mortem of a training run, from the files it left behind."""

__version__ = "0.1.0"
