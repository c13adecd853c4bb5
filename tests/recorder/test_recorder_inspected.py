"""`inspect` repeats what the flight recorder kept: every data source and option, to the same step and the same numbers."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptdoctor import inspect
from ckptdoctor.model import NonfinitePoint, Phase, Repeat, ReplayStatus
from ckptdoctor.replay.parent import child_environment
from ckptdoctor.replay.request import ReplayRequest
from ckptdoctor.report import render

pytestmark = [pytest.mark.replay, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
BITWISE = (
    "arrays", "generator", "tf_data", "py_dataset", "jit", "eager", "steps_per_execution", "accumulation", "short_batch",
    "mixed", "validation", "resumed", "several_by_name", "several_in_a_list", "weighted", "bfloat16", "global_generator",
    "hidden", "custom", "scaled", "moved_aside", "overflow",
)  # fmt: skip
ROUNDING = {"bfloat16": 1e-2, "mixed": 2e-3, "scaled": 2e-3, "overflow": 1e-3}
"""Relative difference of losses where the processor rounds otherwise: of the type they are computed in, and grown."""
FAILING_STEP = {"short_batch": 8, "validation": 10, "resumed": 16}
MIRRORED_TOLERANCE = 1e-5  # relative: two sums of half a batch each are not one sum of the whole batch


def python(*arguments: str, env: dict[str, str] | None = None) -> None:
    environment = dict(os.environ if env is None else env) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(HERE), environment.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=280, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Recorded failing runs, and what replay found beside each, as <run>.json."""
    directory = tmp_path_factory.mktemp("recorded")
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    python(str(HERE / "recorded_failures.py"), str(directory), env=environment)
    for name, change in (("other_seeds", _other_seeds), ("one_seed_more", _one_seed_more)):
        shutil.copytree(directory / "tf_data", directory / name)
        _rewrite(directory / name, change)
    recorded_with = child_environment(ReplayRequest(()), onednn=True)  # TensorFlow's default where these tests run
    python(str(HERE / "repeat_recorded.py"), str(directory), env=recorded_with)
    return directory


def _rewrite(run: Path, change) -> None:
    path = run / "recorder.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _other_seeds(document: dict) -> None:
    document["window"]["seed_generators"][0]["state"] = [12345, 6]


def _one_seed_more(document: dict) -> None:
    document["window"]["seed_generators"].append({"layer": "gone", "index": 0, "state": [1, 2]})


def found(runs: Path, name: str) -> dict:
    return json.loads((runs / f"{name}.json").read_text())


def recorded(runs: Path, name: str) -> dict:
    return json.loads((runs / name / "recorder.json").read_text())


def exact(runs: Path) -> bool:
    """Whether the plainest run is repeated to the last bit here.

    Measured: so on one processor; on another (AVX2 without AVX-512) TensorFlow rounds one and the same step otherwise when it
    is compiled beside others, as `fit` does. All runs are held to the last bit where this one is, else to rounding.
    """
    repeat = found(runs, "arrays")["repeat"]
    return repeat["equal"] == repeat["compared"]


@pytest.mark.parametrize("name", BITWISE)
def test_the_same_step_fails_and_every_loss_before_it_is_equal_to_the_last_bit_or_to_rounding(runs, name):
    result, document = found(runs, name), recorded(runs, name)
    repeat, step = result["repeat"], document["reason"]["step"]
    assert name == "overflow" or step == FAILING_STEP.get(name, 7)  # where it overflows, the machine may decide
    assert result["status"] == "reproduced"
    assert (repeat["outcome"], repeat["failed_step"]) == ("same step", step)
    finite = step - document["window"]["first_step"] + (document["reason"]["kind"] != "loss")
    assert repeat["compared"] == finite
    if exact(runs):
        assert (repeat["equal"], repeat["difference"]) == (finite, 0.0)
    else:
        assert repeat["difference"] <= ROUNDING.get(name, 2e-6)


@pytest.mark.parametrize("name", [*BITWISE, "mirrored"])
def test_the_same_weights_are_non_finite_after_it(runs, name):
    """Apart from the model's own name in front, which a rebuilt model may not have."""
    repeat, variables = found(runs, name)["repeat"], recorded(runs, name)["reason"]["variables"]
    if name == "hidden" and not exact(runs):
        return  # which kernels swallow a NaN is the processor's choice too
    assert repeat["variables_agree"] is True
    assert [v.split("/")[-2:] for v in repeat["variables"]] == [v.split("/")[-2:] for v in variables]


@pytest.mark.parametrize("name", sorted({*BITWISE, "mirrored"} - {"overflow"}))
def test_the_first_bad_place_is_the_row_that_broke_training(runs, name):
    point = found(runs, name)["first_bad"]
    variable = {"weighted": "x", "hidden": "x", "several_by_name": "y_1", "several_in_a_list": "y_0"}.get(name, "y")
    row = {"short_batch": 69 % 8, "validation": 25 % 8}.get(name, 60 % 8)
    assert (point["phase"], point["variable"], point["rows"]) == ("input", variable, [row])


def test_an_overflow_that_every_dropout_mask_led_to_is_found_in_its_layer(runs):
    point = found(runs, "overflow")["first_bad"]
    assert (point["phase"], point["layer"], point["op"]) == ("forward", "grows", "Exp")


@pytest.mark.parametrize("name", BITWISE)
def test_nothing_is_said_to_differ_but_what_does(runs, name):
    left_out = found(runs, name)["repeat"]["not_honoured"]
    assert len(left_out) == (name == "custom")
    assert all("loop of your own" in text for text in left_out)


def test_two_replicas_are_taken_as_one_batch_and_that_is_said(runs):
    result = found(runs, "mirrored")
    repeat = result["repeat"]
    assert (result["status"], repeat["outcome"], repeat["failed_step"]) == ("reproduced", "same step", 7)
    assert repeat["compared"] == 4
    assert repeat["difference"] <= MIRRORED_TOLERANCE
    assert any("2 replicas" in text for text in repeat["not_honoured"])


@pytest.mark.parametrize(
    ("name", "what"), [("own_step", "the model's own train_step"), ("sparse", "ragged or sparse x (padded with zeros)")]
)
def test_what_cannot_be_repeated_as_it_was_is_said_beside_how_near_it_comes(runs, name, what):
    result = found(runs, name)
    repeat = result["repeat"]
    assert (result["status"], repeat["outcome"], repeat["failed_step"]) == ("reproduced", "same step", 7)
    assert repeat["difference"] <= 1e-5
    assert any(what in text for text in repeat["not_honoured"])


def test_a_run_that_did_not_fail_is_repeated_and_stays_finite(runs):
    result = found(runs, "finished")
    repeat = result["repeat"]
    assert (result["status"], repeat["outcome"], repeat["failed_step"]) == ("not_reproduced", "finite", None)
    assert repeat["compared"] >= 3
    assert repeat["compared"] == repeat["equal"] or not exact(runs)


def test_dropout_masks_are_the_recorded_ones_because_their_seeds_are_put_back(runs):
    assert found(runs, "tf_data")["repeat"]["seeds"] == 1
    other = found(runs, "other_seeds")["repeat"]
    assert other["seeds"] == 1
    assert other["difference"] > 1e-3


def test_a_seed_state_without_a_place_is_said(runs):
    repeat = found(runs, "one_seed_more")["repeat"]
    assert repeat["seeds"] == 1
    assert any("no seed generator 0 in a layer 'gone'" in text for text in repeat["not_honoured"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("mixed", "the loss scale"),
        ("accumulation", "gradients accumulated over 3 steps"),
        ("weighted", "sample weights"),
        ("jit", "XLA"),
        ("bfloat16", "bfloat16 as the step saw it"),
        ("generator", "the shapes the step was compiled for"),
    ],
)
def test_what_was_honoured_is_said(runs, name, what):
    assert what in found(runs, name)["repeat"]["honoured"]


def test_inspect_says_that_the_recording_was_used(runs):
    report = inspect(runs / "tf_data", budget=0.0)
    replay = report.evidence.replay
    assert replay.status is ReplayStatus.REPRODUCED
    assert isinstance(replay.repeat, Repeat)
    assert (replay.repeat.outcome, replay.repeat.compared) == ("same step", 4)
    assert isinstance(replay.first_bad, NonfinitePoint)
    assert (replay.first_bad.phase, replay.first_bad.optimizer_step) == (Phase.INPUT, 7)
    assert replay.environment["onednn"] == "on"
    losses = [loss for _, loss in report.evidence.recorder.window.losses[:-1]]
    assert [r.loss for r in replay.records[:-1]] == pytest.approx(losses, rel=0 if exact(runs) else 2e-6, abs=0)
    text = " ".join(str(report).split())
    assert "The flight recorder: the loss became NaN at step 7 (epoch 0, batch 7) (8 steps taken)." in text
    assert "The recorded steps 3 to 7 were repeated: step 7 fails as it did in training" in text
    assert ("equals the recorded one to the last bit" in text) == (replay.repeat.equal == 4)
    document = json.loads(report.to_json())
    assert document["replay"]["repeat"]["outcome"] == "same step"
    assert document["recorder"]["step"] == document["recorder"]["window"]["last_step"] == 7
    assert document["files"]["recorder"].endswith("recorder.json")
    for page in (report.to_markdown(), render(report, "html")):
        assert "the loss became NaN at step 7" in page


def test_a_failure_that_fused_operations_hid_is_repeated_as_it_was_and_told_without_them(runs):
    """The recorded step had a finite loss; the same step without oneDNN has not."""
    replay = inspect(runs / "hidden", budget=0.0).evidence.replay
    assert replay.status is ReplayStatus.REPRODUCED
    assert math.isfinite(replay.records[-1].loss)
    assert replay.repeat.outcome == "same step"
    assert "the loss of the failing step stays finite" in replay.disagreement
    assert replay.mode.endswith("compared with oneDNN off")
