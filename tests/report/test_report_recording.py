"""What the report says of a recording: that it was used, how exactly, and what was not."""

from __future__ import annotations

import pytest

from ckptdoctor.model import Repeat
from ckptdoctor.report.recording import repeated

SAME = Repeat("same step", "", 3, 7, 7, compared=4, equal=4, difference=0.0, seeds=2)


def changed(**members: object) -> str:
    return repeated(Repeat(**{name: getattr(SAME, name) for name in Repeat.__slots__} | members))


def test_without_a_recording_nothing_is_said():
    assert repeated(None) == ""


def test_an_exact_repetition():
    assert repeated(SAME) == (
        "The recorded steps 3 to 7 were repeated: step 7 fails as it did in training, and the loss of each of 4 finite steps "
        "equals the recorded one to the last bit. The states of 2 random generators (dropout and the like) were put back."
    )


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"outcome": "other step", "failed_step": 5}, "step 5 fails, which it did not in training"),
        ({"outcome": "finite", "failed_step": None}, "repeated: none fails"),
        ({"first_step": 7, "compared": 0, "difference": None}, "The recorded step 7 was repeated: step 7 fails as it did in training. "),
        ({"equal": 1, "difference": 1.3e-7}, "of 4 finite steps agrees with the recorded one (largest relative difference 1.3e-07)"),
        ({"equal": 1, "difference": 0.2}, "of 4 finite steps differs from the recorded one (largest relative difference 2.0e-01)"),
        ({"compared": 1, "equal": 1}, "and the loss of 1 finite step equals the recorded one to the last bit"),
        ({"variables_agree": False}, "Other weights are non-finite after it than were recorded."),
        ({"not_honoured": ("2 replicas", "XLA")}, "Not repeated: 2 replicas; XLA."),
        ({"outcome": "not used", "reason": "the file is gone"}, "The recorded steps were not repeated exactly: the file is gone."),
    ],
)  # fmt: skip
def test_every_other_outcome_has_its_words(members, words):
    assert words in changed(**members)
