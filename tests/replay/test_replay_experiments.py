"""Which single change heals: tried from the same state on the same batches."""

import pytest
from replay_runs import once

from ckptdoctor.model import Cause, ReplayStatus

pytestmark = [pytest.mark.replay, pytest.mark.timeout(280)]


def tried(run, **changes):
    result = once(run, experiments=True, **changes)
    return result, {e.key: e for e in result.experiments}


def test_a_divergence_is_healed_by_a_smaller_rate_with_the_line_to_write(runs):
    result, found = tried(runs / "rate_too_high")
    assert found["lr/100"].removes_failure
    assert found["lr/100"].learns
    assert "optimizer = keras.optimizers.SGD(learning_rate=0.1)" == found["lr/100"].code
    assert Cause.LEARNING_RATE is found["lr/100"].cause
    assert result.baseline.failed
    assert any("near mean 0" in why for _, why in result.skipped_experiments)


def test_shifting_labels_heals_labels_that_count_from_one(runs):
    _, found = tried(runs / "labels_from_one")
    assert found["shift_labels"].removes_failure
    assert found["shift_labels"].learns
    assert "y = y - 1" == found["shift_labels"].code
    assert found["lr/100"].removes_failure is False


def test_nan_rows_heal_only_by_leaving_them_out_or_masking(runs):
    _, found = tried(runs / "nan_label")
    assert found["drop_bad_rows"].removes_failure
    assert found["mask_nan_targets"].removes_failure
    assert not any(found[key].removes_failure for key in ("lr/10", "lr/100", "clip_global_1"))


def test_an_epsilon_of_zero_is_healed_by_an_epsilon(runs):
    _, found = tried(runs / "epsilon_of_zero")
    assert found["epsilon"].removes_failure
    assert Cause.OPTIMIZER is found["epsilon"].cause


def test_half_precision_is_healed_by_float32_and_not_by_clipping(runs):
    _, found = tried(runs / "half_softmax")
    assert found["float32"].removes_failure
    assert found["clip_global_1"].removes_failure is False


def test_a_dead_head_is_finite_but_only_another_head_makes_it_learn(runs):
    result, found = tried(runs / "relu_head")
    assert ReplayStatus.NOT_REPRODUCED is result.status
    assert found["output_activation"].learns
    assert found["output_activation"].removes_failure
    assert "out" == found["output_activation"].layer
    assert 0 < result.baseline.after.target_std
    dead = next(a for a in result.activity if a.layer == "out")
    assert 1.0 == dead.dead_fraction
    assert 0.0 == dead.row_std


def test_masks_of_255_are_divided_before_another_head_is_tried(runs):
    result, found = tried(runs / "masks_of_255")
    assert "scale_targets" == result.experiments[0].key
    assert found["scale_targets"].learns
    assert "y = y / 255" == found["scale_targets"].code
    assert Cause.LABELS is found["scale_targets"].cause


def test_targets_of_thousandths_are_multiplied(runs):
    _, found = tried(runs / "densities", plateau=True)
    assert "targets times 100" in found["scale_targets"].change
    assert Cause.DATA_SCALE is found["scale_targets"].cause


def test_adadelta_is_tried_at_the_rate_of_its_paper(runs):
    _, found = tried(runs / "slow_adadelta")
    assert found["lr*1000"].learns
    assert "keras.optimizers.Adadelta(learning_rate=1)" in found["lr*1000"].code


def test_a_healthy_run_gets_no_experiments(runs):
    result, found = tried(runs / "healthy")
    assert {} == found
    assert result.learns is True


def test_a_small_budget_leaves_experiments_out_and_lists_them(runs):
    result, found = tried(runs / "rate_too_high", budget=0.0)
    assert {} == found
    assert any("budget" in why for _, why in result.skipped_experiments)


def test_a_missing_custom_loss_is_substituted_suspected_and_never_reproduced(runs):
    result, found = tried(runs / "custom_rmse", failed=True)
    assert ReplayStatus.NOT_REPRODUCED is result.status
    assert result.first_bad is None
    assert "rmse" == result.custom_loss
    assert "substituted" == result.start.loss
    assert (2,) == result.suspected.rows
    assert result.suspected.message.startswith(
        "If 'rmse', whose code is not at hand, is the root of the mean squared error"
    )
    assert found["stable_loss"].removes_failure
    assert found["replace_loss"].learns


def test_pooling_that_forgets_where_is_opened(runs):
    result, found = tried(runs / "place_pooled_away")
    assert ReplayStatus.NOT_REPRODUCED is result.status
    flattened = found["structure_pooling"]
    assert flattened.learns
    assert "pool" == flattened.layer
    assert Cause.ARCHITECTURE is flattened.cause
    assert "Flatten" in flattened.code
    assert not any(found[key].learns for key in found if key.startswith(("lr", "clip", "optimizer")))


def test_padding_that_a_recurrence_reads_last_is_masked(runs):
    _, found = tried(runs / "padded_behind")
    masked = found["structure_padding"]
    assert masked.learns
    assert "words" == masked.layer
    assert "mask_zero=True" in masked.code


def test_targets_of_another_length_than_the_output_do_not_stop_replay(runs):
    result, _ = tried(runs / "own_sequence_loss")
    assert ReplayStatus.NOT_REPRODUCED is result.status
    assert "reading" == result.custom_loss


def test_a_normalisation_over_one_feature_is_named_and_left_out(runs):
    result, found = tried(runs / "norm_over_one_feature")
    assert ("norm",) == result.one_element_norms
    assert found["layer_norm"].learns
    assert "norm" == found["layer_norm"].layer
