"""Where replay starts from, and the files it starts from: healed checkpoints, Keras 2, named inputs, saved datasets."""

import pytest
from replay_runs import once, replayed

from ckptdoctor.model import Phase, ReplayStatus

pytestmark = [pytest.mark.replay, pytest.mark.timeout(240)]


def test_without_a_healthy_checkpoint_the_bad_one_is_healed_for_the_experiment(runs):
    result = once(runs / "only_broken")
    assert "healed" == result.start.kind
    assert ("out/kernel",) == tuple(path.removeprefix("sequential/") for path in result.start.healed)
    assert ReplayStatus.REPRODUCED is result.status
    told = next(note for note in result.findings_notes if note.startswith("from fresh weights"))
    assert 3 == told.count("fails at step")


def test_inputs_recorded_by_name_reach_the_right_layer(runs):
    point = once(runs / "two_inputs").first_bad
    assert (Phase.INPUT, "b", (6,), (1,)) == (point.phase, point.layer, point.rows, point.features)


def test_a_saved_dataset_is_read_by_the_child(runs):
    result = replayed(runs / "nan_label", batches=str(runs / "saved_dataset" / "last_batches"))
    assert (Phase.INPUT, "y", 1, (3,)) == (
        result.first_bad.phase,
        result.first_bad.variable,
        result.first_bad.batch,
        result.first_bad.rows,
    )


def test_a_keras_2_file_is_replayed_and_a_normalisation_over_one_element_named(runs):
    result = once(runs / "keras_2_one_element")
    assert ReplayStatus.NOT_REPRODUCED is result.status
    assert "tf_keras" in result.environment["keras"]
    assert ("norm",) == result.one_element_norms
    assert any("norm" in note and "single element" in note for note in result.findings_notes)


def test_batches_that_do_not_fit_are_a_sentence(runs):
    result = replayed(runs / "nan_label", batches=str(runs / "masked_attention" / "last_batches.npz"))
    assert ReplayStatus.NOT_RUN is result.status
    assert "the batches hold (5, 4)" in result.reason


CUSTOM = """
import keras

def rmse(y_true, y_pred):
    return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1))
"""


def test_with_the_runs_own_loss_the_failure_is_reproduced_and_its_row_named(runs, tmp_path, monkeypatch):
    (tmp_path / "replay_own_loss.py").write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    result = replayed(runs / "custom_rmse", custom_objects="replay_own_loss", failed=True, experiments=True)
    point = result.first_bad
    assert "custom objects" == result.start.loss
    assert (Phase.BACKWARD, None, "SqrtGrad", 0, (2,)) == (point.phase, point.layer, point.op, point.batch, point.rows)
    stable = next(e for e in result.experiments if e.key == "stable_loss")
    assert stable.removes_failure
    assert "model.compile(..., loss='mean_squared_error')" == stable.code


def test_a_module_that_cannot_be_imported_is_a_sentence(runs):
    result = replayed(runs / "custom_rmse", custom_objects="no_such_module_anywhere")
    assert ReplayStatus.NOT_RUN is result.status
    assert "'no_such_module_anywhere', which cannot be imported" in result.reason
