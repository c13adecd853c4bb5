"""Each limit can be raised for a legitimate giant, and lowered: from Python, on the command line, in a file named with --config."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest

import ckptdoctor
from ckptdoctor.checkpoints import CheckpointError, open_checkpoint
from ckptdoctor.checkpoints.limits import (
    DEFAULT_LIMITS,
    ReadLimits,
    changed_limits,
    current_limits,
    parse_amount,
    use_limits,
)
from ckptdoctor.model import CkptDoctorError
from fixtures.hostile_parts import archive, dense, model, part


def deep() -> bytes:
    """A configuration nested deeper than anybody's."""
    layer = dense()
    for n in range(50):
        layer = part("Sequential", "keras", name=f"m{n}", layers=[layer])
    return archive(model(layer))


@pytest.fixture
def giant(tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes(deep())
    return path


def command(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]
    return subprocess.run([*start, *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


@pytest.mark.parametrize(
    ("text", "number"),
    [("300", 300), ("256MiB", 256 << 20), ("0.5 GiB", 1 << 29), ("true", 1), ("False", 0), ("x", None), ("-1", None)],
)
def test_amounts(text, number):
    assert number == parse_amount(text)


def test_every_limit_can_be_changed_and_nothing_else():
    for field in fields(ReadLimits):
        changed = changed_limits({field.name: 1})
        assert getattr(changed, field.name) == 1
        assert type(getattr(changed, field.name)) is type(field.default)
    with pytest.raises(CkptDoctorError, match="did you mean 'json_bytes'"):
        changed_limits({"json_byte": 1})
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(CkptDoctorError, match="positive number"):
            changed_limits({"json_bytes": wrong})


def test_they_hold_for_their_block_only():
    with use_limits({"json_bytes": 5}):
        assert current_limits().json_bytes == 5
        with use_limits({}):
            assert current_limits() == DEFAULT_LIMITS
    assert current_limits() == DEFAULT_LIMITS


def test_from_python(giant):
    assert ckptdoctor.inspect(giant, replay=False).verdict.status.value == "unreadable"
    assert ckptdoctor.inspect(giant, replay=False, limits={"json_depth": 500}).verdict.status.value == "healthy"
    (line,) = ckptdoctor.scan(str(giant), jobs=1, limits={"json_depth": 500})
    assert line.status.value == "healthy"
    with use_limits({"zip_members": 2}), pytest.raises(CheckpointError, match="see --limit zip_members"):
        open_checkpoint(giant)


def test_on_the_command_line(giant):
    refused = command("inspect", "--no-replay", "--format", "json", str(giant))
    assert refused.returncode == 2
    assert "see --limit json_depth" in refused.stdout
    assert (
        command("inspect", "--no-replay", "--format", "json", "--limit", "json_depth=500", str(giant)).returncode == 0
    )
    scanned = command("scan", "--format", "jsonl", "--limit", "json_depth=500", str(giant))
    assert json.loads(scanned.stdout)["status"] == "healthy"
    for words in ("json_depth", "json_depth=many", "nothing=1", "json_depth=0"):
        wrong = command("inspect", "--limit", words, str(giant))
        assert wrong.returncode == 2
        assert "--limit" in wrong.stderr


def test_a_configuration_found_beside_the_file_lifts_nothing(giant):
    """A stranger's folder may hold a pyproject.toml: it must not say what the stranger's checkpoint may ask for."""
    settings = giant.parent / "pyproject.toml"
    settings.write_text('[tool.ckptdoctor.limits]\njson_depth = 500\nchild_memory_bytes = "2GiB"\n')
    for what in ("inspect", "scan"):
        found = command(what, str(giant), cwd=giant.parent)
        assert found.returncode == 2
        assert "lifts guards" in found.stderr
    named = command("inspect", "--no-replay", "--format", "json", "--config", str(settings), str(giant))
    assert named.returncode == 0, named.stderr
    settings.write_text('[tool.ckptdoctor.limits]\njson_depth = "deep"\n')
    assert "json_bytes" in command("inspect", "--config", str(settings), str(giant)).stderr
