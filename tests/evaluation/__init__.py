"""How often the diagnosis is right: `python -m tests.evaluation [CASES…]`."""
