"""The child may be killed, hang, run out of memory or crash: the parent reports a sentence and keeps what was found."""

import contextlib
import os
import signal
import tempfile
import textwrap
from pathlib import Path

import pytest
from replay_runs import replayed, request_for

from ckptdoctor.model import ReplayStatus
from ckptdoctor.replay import ReplayError, run_replay

pytestmark = [pytest.mark.replay, pytest.mark.timeout(240)]

TROUBLE = """
import os, signal, time
import numpy as np

def hang():
    time.sleep(600)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def crash():
    import ctypes
    ctypes.string_at(0)

def swallow():
    kept = []
    while True:
        kept.append(np.ones(1 << 24))
        time.sleep(0.02)

def noisy():
    print('{"fields": {"status": "reproduced"}}')
    raise RuntimeError("nothing here")

def fine():
    import keras
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out")])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model
"""


@pytest.fixture
def trouble(tmp_path, monkeypatch):
    (tmp_path / "replay_trouble.py").write_text(textwrap.dedent(TROUBLE))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("trouble")
@pytest.mark.parametrize(
    ("function", "limits", "words"),
    [
        ("hang", {"wall_seconds": 15.0}, "took longer than its 15 seconds"),
        ("killed", {}, "was killed from outside"),
        ("crash", {}, "crashed inside native code (SIGSEGV)"),
        ("swallow", {"memory_bytes": 3 << 29}, "of memory (the limit is 1.5 GB)"),
    ],
)
def test_trouble_in_the_child_becomes_a_sentence(runs, function, limits, words):
    result = replayed(runs / "healthy", build=f"replay_trouble:{function}", **limits)
    assert ReplayStatus.FAILED is result.status
    assert words in result.reason
    assert "while rebuilding the model" in result.reason


@pytest.mark.usefixtures("trouble")
def test_what_a_users_module_prints_is_not_taken_for_a_result(runs):
    result = replayed(runs / "healthy", build="replay_trouble:noisy")
    assert ReplayStatus.NOT_RUN is result.status
    assert "replay_trouble:noisy raised RuntimeError: nothing here" == result.reason


@pytest.mark.usefixtures("trouble")
def test_a_build_function_serves_weights_without_a_configuration(runs):
    result = replayed(runs / "nan_label", build="replay_trouble:fine", model_config=None, compile_config=None)
    assert ReplayStatus.REPRODUCED is result.status
    assert "build function" == result.start.loss
    assert (3,) == result.first_bad.rows


def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def test_a_child_killed_late_leaves_what_it_had_found(runs):
    def kill_at_the_first_experiment(text):
        if "trying:" in text:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    request = request_for(runs / "rate_too_high")
    result = run_replay(request, progress=kill_at_the_first_experiment)
    assert ReplayStatus.FAILED is result.status
    assert "what it had found by then is kept" in result.reason
    assert result.first_bad.op == "Square"
    assert result.records


def test_no_child_outlives_its_parents_call(runs):
    replayed(runs / "healthy", wall_seconds=3.0)
    assert [] == [pid for pid in children() if b"ckptdoctor" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_no_temporary_file_outlives_a_replay_or_a_killed_one(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert ReplayStatus.REPRODUCED is replayed(runs / "nan_label").status
    assert [] == list(tmp_path.iterdir())
    seen = []

    def kill_at_the_first_experiment(text):
        if "trying:" in text:
            seen.extend(tmp_path.rglob("__autograph_generated_file*"))
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    run_replay(request_for(runs / "rate_too_high"), progress=kill_at_the_first_experiment)
    assert seen, "TensorFlow wrote none of its files where they can be removed"
    assert [] == list(tmp_path.iterdir())


def test_asking_for_a_gpu_that_is_not_there_is_an_error(runs):
    request = request_for(runs / "healthy", device="gpu:7", experiments=False)
    with pytest.raises(ReplayError, match="asks for a GPU that is not there"):
        run_replay(request, progress=lambda _text: None)
