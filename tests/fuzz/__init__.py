"""Changed files by the thousand, through everything that reads: `python -m tests.fuzz --inputs 20000`."""
