"""Where it broke: by what grew in replay, by the first non-finite value, by the finding that measured a part of the step."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "rules"))

from making import array, batches, census, evidence, log, point, replay, series, spec, tensor, timeline

from ckptdoctor.model import Cause, Finding, NonfinitePoint, Phase, ReplayStatus, Severity, StepRecord, Vote
from ckptdoctor.origin import EXPLODED, GREW, locate

OVERFLOW_IN_THE_LOSS = NonfinitePoint(Phase.LOSS, None, "Square", None, 2, 17, 1, (), "inf")


def record(step, weights, gradients, ratios=(0.1, 0.2)):
    return StepRecord(
        step,
        0,
        1.0,
        None,
        gradients,
        layer_gradient_norms=(gradients, gradients / 2),
        layer_update_ratios=ratios,
        weight_norm=weights,
    )


def grown(factor, *, gradients=1.0, bad=OVERFLOW_IN_THE_LOSS):
    """Evidence of a replay whose weights grew by a factor before it overflowed."""
    records = (record(0, 1.0, gradients), record(1, 1.0, gradients, (3.0, 70.0)), record(2, factor, float("nan")))
    repeated = replay(ReplayStatus.REPRODUCED, first_bad=bad, records=records, layer_names=("h", "out"))
    return evidence(census=census(tensor(nan=5)), replay=repeated)


@pytest.mark.parametrize("cause", [Cause.LEARNING_RATE, Cause.DATA_SCALE, Cause.OPTIMIZER])
def test_weights_that_grew_are_the_updates_doing_in_the_layer_they_changed_most(cause):
    origin = locate((), grown(2 * GREW), cause)
    assert (Phase.UPDATE, "out", None, 17) == (origin.phase, origin.layer, origin.op, origin.step)
    assert "2 updates made the weights 2.0e+01 times as large; the first overflow then showed in the loss" in origin.how


@pytest.mark.parametrize(("times", "phase"), [(2 * GREW, Phase.UPDATE), (0.9 * GREW, Phase.LOSS)])
def test_weights_that_grew_from_checkpoint_to_checkpoint_are_the_updates_doing_too(times, phase):
    def saved(kernel):
        return census(tensor("h/kernel"), tensor("out/kernel", rms=kernel))

    repeated = replay(ReplayStatus.REPRODUCED, first_bad=OVERFLOW_IN_THE_LOSS, records=(record(0, 9.0, float("nan")),))
    points = (point(0, saved(0.1)), point(1, saved(0.1 * math.sqrt(2 * times**2 - 1))))
    origin = locate((), evidence(timeline=timeline(*points), replay=repeated), Cause.LEARNING_RATE)
    assert phase is origin.phase
    if phase is Phase.UPDATE:
        assert "out" == origin.layer
        assert origin.how.startswith("checkpoints: updates made the weights 2.0e+01 times as large; the first overflow")


def test_weights_that_hardly_grew_leave_the_first_overflow_as_origin():
    origin = locate((), grown(0.9 * GREW), Cause.LEARNING_RATE)
    assert (Phase.LOSS, "Square") == (origin.phase, origin.op)


def test_a_cause_that_does_not_act_through_updates_keeps_the_first_overflow():
    assert Phase.LOSS is locate((), grown(2 * GREW), Cause.LOSS_FUNCTION).phase


def test_exploding_gradients_are_placed_in_the_backward_pass_where_gradients_were_far_above_the_weights():
    burst = locate((), grown(2 * GREW, gradients=2 * EXPLODED), Cause.EXPLODING_GRADIENTS)
    assert (Phase.BACKWARD, "h") == (burst.phase, burst.layer)
    assert "in step 0 weights of norm 1.0e+00 met gradients of norm 2.0e+03" in burst.how
    assert Phase.LOSS is locate((), grown(2 * GREW), Cause.EXPLODING_GRADIENTS).phase


@pytest.mark.parametrize("phase", [Phase.INPUT, Phase.UPDATE])
def test_a_value_that_came_in_or_an_update_that_divides_by_zero_is_no_growth(phase):
    bad = NonfinitePoint(phase, "h", "RealDiv", "kernel", 2, 17, 1, (), "nan")
    origin = locate((), grown(2 * GREW, bad=bad), Cause.OPTIMIZER)
    assert (phase, "h", "kernel") == (origin.phase, origin.layer, origin.variable)


def test_a_fault_without_a_layer_is_placed_where_the_signal_ends():
    lost = Finding("CKD513", Severity.WARNING, "After out all rows look the same", id="CKD513-1", layer="out")
    origin = locate((lost,), evidence(), Cause.LEARNING_RATE)
    assert ("out", "finding CKD513-1") == (origin.layer, origin.how)
    assert locate((), evidence(), Cause.LEARNING_RATE).layer is None


OWN = Finding("CKD134", Severity.INFO, "pool is not Keras' own", id="CKD134-1", layer="pool", data={"own": True})
ALL_BAD = Finding(
    "CKD101", Severity.ERROR, "all", id="CKD101-1", layer="h1", votes=(Vote(Cause.ARCHITECTURE, 0.4, "bad"),)
)


def test_where_nan_is_everywhere_a_layer_that_nobody_could_rebuild_is_the_one_to_look_at():
    origin = locate((ALL_BAD, OWN), evidence(census=census(tensor(nan=5))), Cause.ARCHITECTURE)
    assert ("pool", "finding CKD134-1") == (origin.layer, origin.how)
    replayed = evidence(census=census(tensor(nan=5)), replay=replay())
    assert "h1" == locate((ALL_BAD, OWN), replayed, Cause.ARCHITECTURE).layer
    assert locate((ALL_BAD, OWN), evidence(), Cause.DATA_NONFINITE).layer is None


def test_of_kernels_that_never_moved_the_first_says_little_either():
    votes = (Vote(Cause.ACTIVATION, 1.2, "no gradient"),)
    unmoved = Finding("CKD304", Severity.WARNING, "3 kernels", id="CKD304-1", layer="h1", votes=votes)
    assert "pool" == locate((unmoved, OWN), evidence(), Cause.ACTIVATION).layer
    assert "h1" == locate((unmoved,), evidence(), Cause.ACTIVATION).layer


def test_a_loss_at_fault_acts_on_the_head():
    origin = locate((), evidence(spec=spec()), Cause.LOSS_FUNCTION)
    assert ("out", "the layer whose output the loss takes") == (origin.layer, origin.how)
    assert locate((), evidence(spec=spec()), Cause.LABELS).layer is None


def test_of_several_outputs_the_one_whose_loss_is_nan_is_named():
    two = replace(spec(), outputs=("h2", "out"))

    def located(*bad):
        logs = log(series("epoch_loss", (math.nan,)), *(series(f"epoch_{name}_loss", (math.nan,)) for name in bad))
        return locate((), evidence(spec=two, logs=logs), Cause.LOSS_FUNCTION).layer

    assert "out" == located("out")
    assert "h2" == located("h2")
    assert located("h2", "out") is None


def test_of_a_finite_run_the_loudest_measurement_names_the_part_of_the_step():
    def found(code, weight, layer, **data):
        votes = (Vote(Cause.VANISHING_GRADIENTS, weight, "because"),)
        return Finding(code, Severity.WARNING, "told", id=f"{code}-1", layer=layer, votes=votes, data=data)

    findings = (
        found("CKD504", 0.8, "h3", phase="forward"),
        found("CKD506", 2.2, "h1", phase="backward"),
        found("CKD115", 3.0, "h1"),
    )
    origin = locate(findings, evidence(census=census()), Cause.VANISHING_GRADIENTS)
    assert (Phase.BACKWARD, "h1") == (origin.phase, origin.layer)
    assert locate(findings, evidence(census=census()), Cause.LABELS).phase is None


@pytest.mark.parametrize("kind", ["input", "target"])
def test_without_replay_a_bad_entry_of_a_recorded_array_came_in_with_its_batch(kind):
    bad = array("y" if kind == "target" else "x", kind, nan=1, bad_rows=((2, 5),))
    given = batches(y=bad) if kind == "target" else batches(x=bad)
    origin = locate((), evidence(census=census(tensor(nan=5)), batches=given), Cause.DATA_NONFINITE)
    assert (Phase.INPUT, 2, (5,)) == (origin.phase, origin.batch, origin.rows)
    assert f"array {bad.name}" in origin.how
