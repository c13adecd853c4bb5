"""For every cause a run in which the place it broke at is named, and the change that heals it is found by trying."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from replay_runs import once, silent

from ckptdoctor.api import InspectOptions
from ckptdoctor.discover import discover
from ckptdoctor.evidence.gather import gather
from ckptdoctor.model import FAULTS, Cause, Phase
from ckptdoctor.origin import locate
from ckptdoctor.rules.registry import run_rules

pytestmark = [pytest.mark.replay, pytest.mark.timeout(280)]


class Known(NamedTuple):
    """What is known of a run: where it breaks and which experiment heals it, from which budget in seconds on."""

    run: str
    phase: Phase
    layer: str | None
    op: str | None
    rows: tuple[int, ...]
    fix: str
    budget: float | None = None


KNOWN = {
    Cause.DATA_NONFINITE: Known("nan_label", Phase.INPUT, None, None, (3,), "drop_bad_rows"),
    Cause.DATA_SCALE: Known("raw_features", Phase.UPDATE, "out", None, (), "standardise_inputs", 10.0),
    Cause.LABELS: Known(
        "labels_from_one", Phase.LOSS, "out", "SparseSoftmaxCrossEntropyWithLogits", (), "shift_labels"
    ),
    Cause.LEARNING_RATE: Known("rate_too_high", Phase.UPDATE, "h", None, (), "lr/100"),
    Cause.EXPLODING_GRADIENTS: Known("growing_recurrence", Phase.BACKWARD, "rnn", None, (), "clip_global_1", 10.0),
    Cause.VANISHING_GRADIENTS: Known("sigmoid_stack", Phase.BACKWARD, "h1", None, (), "safe_activation", 4.0),
    Cause.ACTIVATION: Known("exponential_recurrence", Phase.FORWARD, "rnn", "Exp", (4,), "safe_activation", 4.0),
    Cause.LOSS_FUNCTION: Known("poisson_of_a_linear_head", Phase.LOSS, "out", "Log", (6,), "stable_loss", 4.0),
    Cause.MIXED_PRECISION: Known("half_softmax", Phase.FORWARD, "exp", "Exp", (4,), "float32"),
    Cause.OPTIMIZER: Known("epsilon_of_zero", Phase.UPDATE, "out", "RealDiv", (), "epsilon"),
    Cause.INITIALIZATION: Known("huge_weights", Phase.FORWARD, "h2", "MatMul", (0, 2), "reinitialise", 10.0),
    Cause.ARCHITECTURE: Known("wholly_masked_row", Phase.FORWARD, "shares", "Softmax", (3,), "finite_mask", 4.0),
}


def test_every_cause_of_the_vocabulary_has_a_run():
    assert set(FAULTS) == set(KNOWN)


def tried(runs, known):
    options = {} if known.budget is None else {"budget": known.budget}
    return once(runs / known.run, experiments=True, **options)


def judged(run, replay):
    """Evidence and findings as `inspect` would have them with this replay."""
    evidence = replace(gather(discover([str(run)]), InspectOptions(replay=False), silent), replay=replay)
    return evidence, run_rules(evidence).findings


def rows_out_of_range(run, classes=3):
    return tuple(int(n) for n in np.flatnonzero(np.load(run / "last_batches.npz")["y"][0] >= classes))


@pytest.mark.parametrize("cause", FAULTS, ids=lambda cause: cause.value)
def test_the_place_is_named_and_the_change_that_heals_it_found(runs, cause):
    known = KNOWN[cause]
    replay = tried(runs, known)
    evidence, findings = judged(runs / known.run, replay)
    origin = locate(findings, evidence, cause)
    rows = rows_out_of_range(runs / known.run) if cause is Cause.LABELS else known.rows
    assert (known.phase, known.op, rows) == (origin.phase, origin.op, origin.rows)
    # Keras numbers bare operations (`exp`, `exp_1`) over the life of the process that made them
    assert known.layer == (re.sub(r"^exp_\d+$", "exp", origin.layer) if origin.layer else None)
    healing = next(e for e in replay.experiments if e.key == known.fix)
    assert cause is healing.cause
    assert healing.removes_failure


def test_only_the_cause_decides_whether_updates_or_gradients_are_blamed_for_growth(runs):
    replay = tried(runs, KNOWN[Cause.EXPLODING_GRADIENTS])
    evidence, findings = judged(runs / "growing_recurrence", replay)
    assert Phase.BACKWARD is locate(findings, evidence, Cause.EXPLODING_GRADIENTS).phase
    assert Phase.UPDATE is locate(findings, evidence, Cause.LEARNING_RATE).phase
    assert Phase.FORWARD is locate(findings, evidence, Cause.ACTIVATION).phase


def test_the_first_overflow_is_kept_beside_the_updates_that_led_to_it(runs):
    replay = tried(runs, KNOWN[Cause.LEARNING_RATE])
    assert (Phase.LOSS, "Square") == (replay.first_bad.phase, replay.first_bad.op)
    evidence, findings = judged(runs / "rate_too_high", replay)
    assert (
        "times as large; the first overflow then showed in the loss"
        in locate(findings, evidence, Cause.LEARNING_RATE).how
    )


# --- a normalisation over one element ---------------------------------------------------------


def test_a_normalisation_over_one_element_without_epsilon_is_named_where_it_divides(runs):
    replay = once(runs / "one_element_norm", experiments=True, budget=4.0)
    point = replay.first_bad
    assert (Phase.FORWARD, "norm", "Rsqrt", (0,)) == (point.phase, point.layer, point.op, point.rows)
    assert 0.0 == point.operands[0].max
    healing = next(e for e in replay.experiments if e.key == "layer_norm")
    assert healing.removes_failure
    assert healing.learns
    assert Cause.ARCHITECTURE is healing.cause


def test_inspect_names_it_by_its_rule(runs):
    replay = once(runs / "one_element_norm", experiments=True, budget=4.0)
    _, findings = judged(runs / "one_element_norm", replay)
    assert ["norm"] == [f.layer for f in findings if f.rule == "CKD514"]


# --- half precision ---------------------------------------------------------------------------


def test_behind_a_collapsed_loss_scale_the_op_that_overflows_is_found(runs):
    point = once(runs / "collapsed_scale").first_bad
    assert (Phase.BACKWARD, "h", "MatMulGrad", 0) == (point.phase, point.layer, point.op, point.batch)
    assert point.message.startswith("The dynamic loss scale collapsed")
