"""What the recorder writes is what the rest of ckptdoctor reads, without options and without TensorFlow."""

from __future__ import annotations

import math

import pytest

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.discover import discover
from ckptdoctor.evidence.batch_reading import open_batches
from ckptdoctor.evidence.census import take_census
from ckptdoctor.logs import read_log

pytestmark = pytest.mark.replay


@pytest.mark.parametrize(("poisoned", "count"), [(60, 5), (69, 6)])
def test_a_recorded_failure_is_found_and_read_whole(tmp_path, poisoned, count):
    from recorder_training import compiled, data

    from ckptdoctor import FlightRecorder

    run = tmp_path / "run"
    recorder = FlightRecorder(run, batches=6)
    compiled().fit(*data(poisoned), batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=[recorder])
    failed = poisoned // 8

    files = discover([str(run)])
    assert len(files.batches) == 1
    assert {path.rsplit("/", 1)[1] for path in files.logs} >= {"steps.jsonl"}
    nonfinite = []
    for path in files.checkpoints:
        with open_checkpoint(path) as checkpoint:
            census = take_census(checkpoint)
        nonfinite.append((census.iterations, census.nonfinite > 0))
    assert nonfinite == [(3, False), (failed + 1, True)]

    with open_batches(files.batches[0]) as batches:
        assert (batches.count, batches.steps) == (count, tuple(range(3, failed + 1)))
        assert all(inputs[0].shape[1:] == (6,) for inputs, _, _, _ in batches)

    log = read_log(next(path for path in files.logs if path.endswith("steps.jsonl")))
    loss = log.find("loss")
    assert loss is not None
    assert loss.first_nonfinite is not None
    assert loss.first_nonfinite[0] == failed
    assert math.isnan(loss.first_nonfinite[1])
    assert log.find("grad_norm") is not None
