"""Schedules give the rates that Keras gave when the fixture was made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.evidence.schedules import learning_rate_at

RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/optimizers/schedules.json").read_text())


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: r["schedule"]["class_name"])
def test_rates_equal_those_of_keras(recorded: dict) -> None:
    for step, rate in recorded["rates"].items():
        assert learning_rate_at(recorded["schedule"], int(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"class_name": "MyWarmup", "config": {"initial_learning_rate": 1.0}},
        {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1}},
        {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 0}},
        {"class_name": "ExponentialDecay", "config": {"initial_learning_rate": "x", "decay_steps": 1, "decay_rate": 1}},
        {"class_name": "PiecewiseConstantDecay", "config": {"boundaries": [1, 2], "values": [1.0, 2.0]}},
        {"class_name": "PiecewiseConstantDecay", "config": {"boundaries": ["a"], "values": [1.0, 2.0]}},
        {
            "class_name": "CosineDecayRestarts",
            "config": {"initial_learning_rate": 1, "first_decay_steps": 1, "t_mul": -2},
        },
    ],
)
def test_a_schedule_that_cannot_be_evaluated_gives_none(schedule: dict) -> None:
    assert learning_rate_at(schedule, 5) is None


def test_a_nan_rate_stays_a_nan() -> None:
    config = {"initial_learning_rate": math.nan, "decay_steps": 10, "decay_rate": 0.5}
    rate = learning_rate_at({"class_name": "ExponentialDecay", "config": config}, 3)
    assert rate is not None
    assert math.isnan(rate)


numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))


@given(recorded=st.sampled_from(RECORDED), step=st.integers(0, 10**12), data=st.data())
def test_no_argument_makes_it_raise(recorded: dict, step: int, data: st.DataObject) -> None:
    config = {
        key: data.draw(st.one_of(st.just(value), numbers)) for key, value in recorded["schedule"]["config"].items()
    }
    rate = learning_rate_at({"class_name": recorded["schedule"]["class_name"], "config": config}, step)
    assert rate is None or isinstance(rate, float)
