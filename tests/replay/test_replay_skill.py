"""Predictions are put beside targets on whatever scale the run's own loss asks for."""

import numpy as np
import pytest

from ckptdoctor.replay.skill import rank_correlations

pytestmark = pytest.mark.replay


def test_ranks_do_not_see_a_monotone_scale():
    targets = np.arange(1.0, 41.0).reshape(20, 2)
    assert [1.0, 1.0] == pytest.approx(rank_correlations(np.log(targets), targets))
    assert [-1.0, -1.0] == pytest.approx(rank_correlations(-targets, targets))


def test_ranks_of_unrelated_predictions_are_near_zero():
    rng = np.random.default_rng(0)
    (found,) = rank_correlations(rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)))
    assert abs(found) < 0.1


@pytest.mark.parametrize("rows", [1, 15])
def test_few_rows_or_constant_outputs_have_no_order(rows):
    assert not len(rank_correlations(np.arange(rows, dtype=float)[:, None], np.arange(rows, dtype=float)[:, None]))
    assert not len(rank_correlations(np.ones((30, 1)), np.arange(30.0)[:, None]))
