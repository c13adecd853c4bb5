"""Numbers and sentences for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import exploding_rnn, healthy, nan_feature, nothing_known

from ckptdoctor.model import Cause, Experiment, Origin, Phase
from ckptdoctor.report import numbers, story


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "Inf"),
        (-math.inf, "-Inf"),
        (0.0, "0"),
        (3, "3"),
        (12_345, "12,345"),
        (2.0, "2"),
        (0.001, "0.001"),
        (1.23456e-5, "1.235e-5"),
        (1e-5, "1e-5"),
        (3.25e38, "3.25e38"),
        (-0.5, "-0.5"),
        (123456.7, "123,457"),
        ("NaN", "NaN"),
        (True, "yes"),
    ],
)
def test_numbers_are_short_and_honest(value, shown):
    assert shown == numbers.number(value)


@given(st.floats(min_value=-1e307, max_value=1e307))
def test_a_shown_number_is_close_to_the_number(value):
    shown = float(numbers.number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=1e-3, abs=1e-300)


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=1, max_value=10**9))
def test_a_percentage_is_whole_only_where_it_is(part, whole):
    shown = numbers.percent(part, whole)
    assert (shown == "0 %") == (part == 0)
    assert part == whole or shown != "100 %"


def test_sizes_use_decimal_units():
    assert [numbers.size(n) for n in (999, 1000, 96_412, 148_220, 2_100_000_000)] == [
        "999 bytes",
        "1.0 kB",
        "96.4 kB",
        "148 kB",
        "2.1 GB",
    ]


def test_index_lists_end():
    assert [numbers.indices(v) for v in ((), (2,), (2, 5), (1, 2, 3), tuple(range(100)))] == [
        "",
        "2",
        "2 and 5",
        "1, 2 and 3",
        "0, 1, 2, 3, 4, 5, 6, 7 and 92 more",
    ]


def test_confidence_is_a_natural_frequency():
    assert [story.chances(c) for c in (0.999, 0.97, 0.9, 0.5, 0.3)] == [
        "right in more than 99 of 100 such cases",
        "right in about 97 of 100 such cases",
        "right in about 9 of 10 such cases",
        "right in about half of such cases",
        "right in about 3 of 10 such cases",
    ]


def test_places_and_times_read_as_sentences():
    origin = Origin("dense", "kernel", Phase.LOSS, "Log", 1, 2_000, 3, (4, 5))
    assert story.where(origin) == "dense/kernel, in the loss, op Log"
    assert story.when(origin) == "epoch 1, step 2,000, recorded batch 3, rows 4 and 5"
    assert (story.where(Origin()), story.when(Origin())) == ("", "")


@pytest.mark.parametrize(
    ("removes", "learns", "word"),
    [
        (None, None, "undecided"),
        (False, None, "still fails"),
        (True, None, "failure gone"),
        (True, False, "finite, learns nothing"),
        (True, True, "failure gone, learns"),
    ],
)
def test_finite_is_not_healed(removes, learns, word):
    experiment = Experiment("lr/10", "x", Cause.LEARNING_RATE, "", removes, learns, 1, 1, None, None)
    assert word == story.outcome(experiment).word


def test_only_failed_runs_are_resumed():
    assert story.resume(healthy()) is None
    assert story.resume(exploding_rnn()).path == "runs/rnn/checkpoints/epoch_004.keras"


def test_gaps_come_with_the_way_to_close_them():
    gaps = {gap.part: gap for gap in story.not_checked(nothing_known())}
    assert gaps["logs"].reason == "no training log was found"
    assert "CSVLogger" in gaps["logs"].how
    assert story.not_checked(nan_feature()) == ()


def test_names_of_paths_from_any_system():
    assert [story.last_part(p) for p in ("a/b/c", "a/b/c/", "a\\b", "/")] == ["c", "c", "b", ""]


@pytest.mark.parametrize(("value", "shown"), [(10**400, "> 1e300"), (-(10**400), "< -1e300"), (10**20, "1.000e+20")])
def test_whole_numbers_of_any_size_are_shown(value, shown):
    assert shown == numbers.number(value)
