"""A sample of the fuzzing that `fuzz_checkpoints.py` does at length."""

from __future__ import annotations

import fuzz_checkpoints


def test_three_hundred_changed_checkpoints_give_a_result_or_a_sentence():
    assert fuzz_checkpoints.run(300, seed=20_240_607) == []
