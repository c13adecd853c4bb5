"""What replay does not run, said in one sentence, without starting TensorFlow."""

import json
from dataclasses import replace

import pytest

from ckptdoctor.model import (
    Census,
    CheckpointInfo,
    Evidence,
    Format,
    Missing,
    ReplayStatus,
    RunFiles,
    Series,
    TrainingLog,
)
from ckptdoctor.replay import CheckpointRef, ReplayError, ReplayRequest, request_from, run_replay

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "out", "units": 1},
    "registered_name": None,
}
PLAIN = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "m", "layers": [DENSE]},
    "registered_name": None,
}
REQUEST = ReplayRequest(
    (CheckpointRef("epoch_1.keras", "keras", 3),), last_healthy=0, model_config=PLAIN, batches="last_batches.npz"
)


def asked(**changes):
    return run_replay(replace(REQUEST, **changes), progress=lambda _text: None)


@pytest.fixture
def no_child(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a child process was started")

    monkeypatch.setattr("subprocess.Popen", refuse)


@pytest.mark.usefixtures("no_child")
class TestWithoutAChild:
    def test_no_batches(self):
        result = asked(batches=None)
        assert ReplayStatus.NOT_RUN is result.status
        assert "last_batches.npz" in result.reason

    def test_no_checkpoint(self):
        assert "no readable checkpoint" in asked(checkpoints=()).reason

    def test_weights_only_names_the_remedy(self):
        assert "--build MODULE:FUNCTION" in asked(model_config=None).reason

    @pytest.mark.parametrize("device", ["tpu", "gpu:", "gpu:x", "GPU", ""])
    def test_unknown_device(self, device):
        with pytest.raises(ReplayError, match="--device takes"):
            asked(device=device)

    @pytest.mark.parametrize("build", ["train", ":make", "train:"])
    def test_malformed_build(self, build):
        with pytest.raises(ReplayError, match="MODULE:FUNCTION"):
            asked(build=build)

    def test_tensorflow_not_installed(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        assert "pip install 'ckptdoctor[replay]'" in asked().reason

    def test_a_lambda_deep_inside_needs_trust(self):
        bad = {"class_name": "Lambda", "module": "keras.layers", "config": {"function": {"class_name": "__lambda__"}}}
        config = {**PLAIN, "config": {"layers": [{**DENSE, "config": {"layer": bad}}]}}
        result = asked(model_config=config)
        assert ReplayStatus.NOT_RUN is result.status
        assert "--trust" in result.reason
        assert result.refused

    def test_a_lambda_as_loss_needs_trust(self):
        assert "--trust" in asked(compile_config={"loss": {"class_name": "__lambda__", "config": {}}}).reason

    def test_a_class_of_the_users_needs_its_module(self):
        config = {
            **PLAIN,
            "config": {"layers": [{**DENSE, "module": None, "class_name": "Attn", "registered_name": "my>Attn"}]},
        }
        assert "--custom-objects" in asked(model_config=config).reason


def evidence(*, nonfinite=False, losses=(), config=True):
    unknown = Missing("not recorded")
    info = CheckpointInfo(
        "run/a.keras",
        Format.KERAS_ZIP,
        10,
        "3.15.1",
        unknown,
        unknown,
        PLAIN if config else unknown,
        {"loss": "mse"} if config else unknown,
    )
    stats = []
    if nonfinite:
        from ckptdoctor.model import Role, TensorInfo, TensorStats

        stats = [TensorStats(TensorInfo("w", "out", "layers/out", "kernel", Role.WEIGHT, (2,), "float32", 8), nan=1)]
    census = Census(info, tuple(stats), {"iterations": 4.0, "learning_rate": 0.1})
    log = TrainingLog("log.csv", "csv", tuple(losses))
    return Evidence(
        RunFiles("run", ("run/a.keras",), (), ("run/b.npz",)), census, logs=(log,) if losses else Missing("none")
    )


class TestRequestFromEvidence:
    def ask(self, **kind):
        from ckptdoctor.api import InspectOptions

        return request_from(evidence(**kind), InspectOptions())

    def test_a_finite_checkpoint_is_where_to_start(self):
        request = self.ask()
        assert (0, None, False) == (request.last_healthy, request.first_bad, request.failed)
        assert CheckpointRef("run/a.keras", "keras", 4, 0, 0.1) == request.checkpoints[0]
        assert PLAIN == request.model_config
        assert "run/b.npz" == request.batches

    def test_a_bad_checkpoint_means_the_run_failed(self):
        request = self.ask(nonfinite=True)
        assert (None, 0, True) == (request.last_healthy, request.first_bad, request.failed)

    def test_a_loss_that_went_nan_means_the_run_failed(self):
        nan = Series("loss", "epoch", (0.0,), (float("nan"),), 1, 1, (0.0, float("nan")), None, None)
        assert self.ask(losses=[nan]).failed

    def test_a_metric_that_is_nan_does_not(self):
        nan = Series("auc", "epoch", (0.0,), (float("nan"),), 1, 1, (0.0, float("nan")), None, None)
        assert not self.ask(losses=[nan]).failed

    def test_it_crosses_over_as_json(self):
        from ckptdoctor.replay.wire import decode, to_plain

        request = self.ask()
        assert request == decode(ReplayRequest, json.loads(json.dumps(to_plain(request))))


@pytest.mark.usefixtures("no_child")
class TestHostileFiles:
    REF = CheckpointRef("epoch_1.keras", "keras", 3, hostile="layers/dense/vars/0 keeps its values in another file")

    def test_weights_that_lead_elsewhere_are_not_handed_to_keras(self):
        result = asked(checkpoints=(self.REF,))
        assert ReplayStatus.NOT_RUN is result.status
        assert "was not handed to Keras" in result.reason
        assert (self.REF.hostile,) == result.refused

    def test_nor_when_the_user_builds_the_model(self):
        assert "--trust" in asked(checkpoints=(self.REF,), build="train:make", model_config=None).reason

    def test_what_opening_found_is_carried_into_the_request(self):
        from ckptdoctor.api import InspectOptions
        from ckptdoctor.model import Problem, ProblemKind

        found = evidence()
        problem = Problem(ProblemKind.HOSTILE, "a link to another file", "layers/x")
        census = replace(found.census, info=replace(found.census.info, problems=(problem,)))
        request = request_from(replace(found, census=census), InspectOptions())
        assert ("a link to another file",) == tuple(c.hostile for c in request.checkpoints)
