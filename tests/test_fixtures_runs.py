"""The committed runs show what their README says."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.model import Role

RUNS = Path(__file__).resolve().parents[1] / "fixtures" / "runs"
NAMES = sorted(path.name for path in RUNS.iterdir() if path.is_dir())


def weights(run: str, epoch: int) -> dict[str, np.ndarray]:
    """Weights of one checkpoint as `layer/variable`."""
    with open_checkpoint(RUNS / run / "checkpoints" / f"epoch_{epoch:03d}.keras") as checkpoint:
        return {
            f"{t.info.layer}/{t.info.variable}": t.load()
            for t in checkpoint.tensors
            if t.info.role is not Role.SLOT and len(t.info.shape) > 0
        }


def losses(run: str) -> list[float]:
    """The logged loss by epoch."""
    with (RUNS / run / "training_log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def last_epoch(run: str) -> int:
    return max(int(path.stem[6:]) for path in (RUNS / run / "checkpoints").iterdir())


@pytest.mark.parametrize("run", NAMES)
def test_every_run_has_checkpoints_from_before_training_a_log_and_batches(run):
    assert (RUNS / run / "checkpoints" / "epoch_000.keras").exists()
    assert last_epoch(run) == len(losses(run))
    with np.load(RUNS / run / "last_batches.npz", allow_pickle=False) as batches:
        assert len(batches["x"]) == len(batches["y"]) == len(batches["step"])
        assert np.diff(batches["step"]).tolist() == [1] * (len(batches["step"]) - 1)


@pytest.mark.parametrize("run", NAMES)
def test_before_training_every_weight_is_finite(run):
    assert all(np.isfinite(w).all() for w in weights(run, 0).values())


def test_one_nan_cell_poisons_one_kernel_row_while_the_loss_stays_finite():
    assert all(math.isfinite(loss) for loss in losses("nan_feature"))
    for epoch in (1, 2, 3):
        kept = weights("nan_feature", epoch)
        assert np.flatnonzero(np.isnan(kept.pop("hidden/kernel")).any(axis=1)).tolist() == [2]
        assert all(np.isfinite(w).all() for w in kept.values())


def test_the_recorded_batches_hold_the_nan_cell():
    with np.load(RUNS / "nan_feature" / "last_batches.npz", allow_pickle=False) as batches:
        assert np.argwhere(np.isnan(batches["x"])).tolist() == [[5, 7, 2]]
        assert batches["step"][5] == 13


def test_a_rate_of_100_with_sgd_makes_everything_nan():
    assert all(math.isnan(loss) for loss in losses("rate_100_sgd"))
    assert all(np.isnan(w).all() for w in weights("rate_100_sgd", 1).values())


def test_a_rate_of_100_with_adam_stays_finite_but_ruins_the_run():
    assert min(losses("rate_100_adam")) > 1e10
    assert all(np.isfinite(w).all() for w in weights("rate_100_adam", last_epoch("rate_100_adam")).values())


def test_the_scaled_recurrent_net_stays_finite_and_learns_nothing():
    with np.load(RUNS / "rnn_scaled" / "last_batches.npz", allow_pickle=False) as batches:
        variance = float(batches["y"].var())
    assert losses("rnn_scaled")[-1] == pytest.approx(variance, rel=0.2)
    assert all(np.isfinite(w).all() for w in weights("rnn_scaled", last_epoch("rnn_scaled")).values())


@pytest.mark.parametrize("run", [name for name in NAMES if name.endswith("_healthy")])
def test_healthy_runs_stay_finite_and_learn(run):
    assert losses(run)[-1] < 0.3 * losses(run)[0]
    assert all(np.isfinite(w).all() for w in weights(run, last_epoch(run)).values())
