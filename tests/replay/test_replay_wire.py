"""Request and findings cross between the processes unchanged; what does not fit is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.model import Baseline, Cause, Experiment, NonfinitePoint, Phase, Replay, ReplayStatus, Skill, StepRecord
from ckptdoctor.replay.wire import decode, dump_line, to_plain

numbers = st.none() | st.floats(allow_nan=False) | st.just(3)


@given(
    st.lists(
        st.builds(
            StepRecord, st.integers(), st.integers(), st.floats(allow_nan=False), numbers, st.floats(allow_nan=False)
        )
    )
)
def test_a_replay_survives_the_crossing(records):
    replay = Replay(
        ReplayStatus.REPRODUCED,
        records=tuple(records),
        first_bad=NonfinitePoint(Phase.LOSS, None, "Log", None, 3, None, 1, (2, 4), "nan"),
        experiments=(Experiment("lr/10", "smaller", Cause.LEARNING_RATE, "", None, True, 3, 4, 1.0, None),),
        skipped_experiments=(("a", "b"),),
        baseline=Baseline("first", None, 3, failed=False, before=Skill(0.5)),
        environment={"keras": "3"},
        label_range=(1, 5, 5),
    )
    assert replay == decode(Replay, json.loads(dump_line(replay)))


def test_nonfinite_numbers_cross_over():
    record = StepRecord(0, 0, math.inf, math.nan, -math.inf)
    back = decode(StepRecord, json.loads(dump_line(record)))
    assert (math.inf, True, -math.inf) == (back.loss, math.isnan(back.accuracy), back.gradient_norm)


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {"status": "no such"},
        {"status": "failed", "unknown": 1},
        {"status": "failed", "steps": "many"},
        {"status": "failed", "records": 3},
        {"status": "failed", "label_range": [1, 2]},
        {"status": "failed", "first_bad": {"phase": "loss"}},
    ],
)
def test_what_does_not_fit_is_refused(plain):
    with pytest.raises((ValueError, TypeError)):
        decode(Replay, plain)


def test_unknown_objects_do_not_cross():
    with pytest.raises(TypeError):
        to_plain(object())
