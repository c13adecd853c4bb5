"""A save that was cut off half-way: what is still told on the command line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import pytest
from hostile_run import ROOT

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.model import Missing

MODEL = ROOT / "fixtures" / "formats" / "made" / "attention.keras"


@pytest.fixture
def half(tmp_path):
    path = tmp_path / "half.keras"
    data = MODEL.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def test_configuration_and_every_tensor_that_can_be_located(half):
    size = half.stat().st_size
    with open_checkpoint(MODEL) as whole:
        assert len(whole.tensors) >= 20
        inside = [t for t in whole.tensors if t.span is not None and t.span.offset + t.span.nbytes <= size]
        expected = {hashlib.sha256(t.load().tobytes()).hexdigest() for t in inside}
        config = whole.info.model_config
    with open_checkpoint(half) as checkpoint:
        found = [t for t in checkpoint.tensors if t.problem is None]
        digests = {hashlib.sha256(t.load().tobytes()).hexdigest() for t in found}
        assert checkpoint.info.model_config == config
        assert not isinstance(checkpoint.info.keras_version, Missing)
        assert 0.0 < checkpoint.info.coverage < 1.0
    assert len(expected) >= 3
    # One tensor may stand in front of the cut while its own header stands behind it.
    assert len(expected - digests) <= 1


def test_the_command_line_says_how_much_and_ends_with_2(half):
    command = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]
    result = subprocess.run(
        [*command, "inspect", "--no-replay", "--format", "json", str(half)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    document = json.loads(result.stdout)
    assert document["verdict"]["status"] == "unreadable"
    assert document["subject"]["layers"]
    assert [layer for layer in document["layers"] if layer["variables"]]
    coverage = re.search(r"(\d+)\s?%", document["verdict"]["headline"])
    assert coverage is not None
    assert 0 < int(coverage.group(1)) < 100
    messages = " ".join(f["message"] for f in document["findings"])
    assert "weights of the model are not in this file" in messages  # what the rest would have been
