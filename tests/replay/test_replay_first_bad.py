"""Each failure is named exactly: phase, layer, op, batch and rows; and nothing is reproduced where nothing is wrong."""

import math

import pytest
from replay_runs import once

from ckptdoctor.model import Phase, ReplayStatus

pytestmark = [pytest.mark.replay, pytest.mark.timeout(240)]

# run: phase, layer, op, batch, rows
TRAPS = {
    "sqrt_trap": (Phase.BACKWARD, "sqrt", "SqrtGrad", 2, (1, 5)),
    "pow_trap": (Phase.BACKWARD, "power", "PowGrad", 2, (3,)),
    "where_log_trap": (Phase.BACKWARD, "log", "LogGrad", 2, (2, 6)),
    "log_of_zero": (Phase.FORWARD, "log", "Log", 2, (7,)),
    "half_softmax": (Phase.FORWARD, "exp", "Exp", 1, (4,)),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_formula_that_breaks_is_named_with_layer_op_and_rows(runs, name):
    phase, layer, op, batch, rows = TRAPS[name]
    result = once(runs / name)
    point = result.first_bad
    assert ReplayStatus.REPRODUCED is result.status
    assert (phase, op, batch, rows) == (point.phase, point.op, point.batch, point.rows)
    # Keras numbers bare operations (`log`, `log_1`) over the life of the process that made them
    assert layer == point.layer.rstrip("_0123456789")
    assert point.operands


def test_a_where_that_hides_only_the_forward_value_is_called_by_its_name(runs):
    assert "masked by a where" in once(runs / "where_log_trap").first_bad.message
    assert "masked by a where" not in once(runs / "sqrt_trap").first_bad.message


def test_operands_show_the_zero_that_log_was_taken_of(runs):
    assert 0.0 == once(runs / "log_of_zero").first_bad.operands[0].min


def test_the_chain_leads_from_the_origin_to_the_weights(runs):
    chain = once(runs / "log_of_zero").first_bad.chain
    assert [Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.UPDATE] == list(
        dict.fromkeys(link.phase for link in chain)
    )
    assert chain[-1].what.endswith("after the update")
    assert "h" in {link.layer for link in chain if link.phase is Phase.UPDATE}


def test_a_backward_trap_leaves_the_loss_finite(runs):
    result = once(runs / "sqrt_trap")
    assert all(math.isfinite(r.loss) for r in result.records)
    assert {"h"} == {link.layer for link in result.first_bad.chain if link.phase is Phase.UPDATE}


def test_a_nan_label_is_found_in_the_recorded_targets(runs):
    point = once(runs / "nan_label").first_bad
    assert (Phase.INPUT, "y", 1, (3,)) == (point.phase, point.variable, point.batch, point.rows)


def test_a_nan_that_relu_swallows_is_found_and_the_disagreement_told(runs):
    result = once(runs / "nan_behind_relu")
    point = result.first_bad
    assert (Phase.INPUT, "h", "x", (5,), (2,)) == (point.phase, point.layer, point.variable, point.rows, point.features)
    assert "oneDNN" in result.disagreement
    assert "finite" in result.disagreement


def test_a_nan_that_pooling_makes_a_finite_number_of_is_found_in_the_input(runs):
    point = once(runs / "nan_behind_pooling").first_bad
    assert (Phase.INPUT, "pool", "x", 2, (6,)) == (point.phase, point.layer, point.variable, point.batch, point.rows)
    assert "became finite for a while: Conv2D in layer conv made inf" in point.message


def test_a_nan_sample_weight_is_found_in_the_recording(runs):
    point = once(runs / "nan_weight").first_bad
    assert (Phase.INPUT, "sample_weight", 1, (4,)) == (point.phase, point.variable, point.batch, point.rows)


def test_labels_that_count_from_one_are_told_with_their_rows(runs):
    import numpy as np

    result = once(runs / "labels_from_one")
    recorded = np.load(runs / "labels_from_one" / "last_batches.npz")["y"][0]
    assert (1, 3, 3) == result.label_range
    assert tuple(np.flatnonzero(recorded == 3)) == result.first_bad.rows
    assert "as on a GPU" in result.mode


def test_an_update_that_divides_zero_by_zero_names_the_weight(runs):
    point = once(runs / "epsilon_of_zero").first_bad
    assert (Phase.UPDATE, "RealDiv", "out", "kernel") == (point.phase, point.op, point.layer, point.variable)


def test_a_divergence_is_told_with_the_growth_before_it(runs):
    result = once(runs / "rate_too_high")
    assert ReplayStatus.REPRODUCED is result.status
    norms = [r.weight_norm for r in result.records]
    assert norms == sorted(norms)
    first = result.records[0]
    assert first.learning_rate * first.sharpness > 2


@pytest.mark.parametrize("name", ["masked_attention", "harmless_where", "loss_scale_probing", "healthy"])
def test_harmless_nonfinite_values_are_not_failures(runs, name):
    result = once(runs / name)
    assert ReplayStatus.NOT_REPRODUCED is result.status
    assert result.first_bad is None


def test_loss_scaling_is_recorded(runs):
    scales = [r.loss_scale for r in once(runs / "loss_scale_probing").records]
    assert scales[0] > scales[-1] >= 1


def test_a_token_outside_the_table_is_a_sentence(runs):
    result = once(runs / "token_out_of_range")
    assert ReplayStatus.FAILED is result.status
    assert "batch 3" in result.reason
    assert "12 is not in [0, 10)" in result.reason


def test_slots_and_layers_are_restored_and_the_environment_told(runs):
    result = once(runs / "healthy")
    assert result.start.slots_restored
    assert () == result.not_restored
    assert ("h", "out") == result.layer_names
    assert {"tensorflow", "keras", "numpy", "onednn", "xla", "determinism", "precision"} <= result.environment.keys()
    assert "off" == result.environment["onednn"]
    assert result.learns is True
    assert result.skill.score > 0.6
    assert ["h", "out"] == [a.layer for a in result.activity]
