"""Every published hole and every known evasion: told by its number, and nothing of it happens."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest
from hostile_run import HOSTILE, ROOT, harmless, offences, strace, system_calls, watched

from ckptdoctor.checkpoints import CheckpointError, open_checkpoint
from ckptdoctor.model import Missing, ProblemKind, ReplayStatus
from ckptdoctor.replay import CheckpointRef, ReplayRequest, run_replay
from fixtures.hostile_parts import CANARY, payload
from fixtures.make_hostile import HIDDEN, PUBLISHED, SAMPLES

ADVISORIES = [
    "CVE-2024-3660",
    "CVE-2025-1550",
    "CVE-2025-8747",
    "CVE-2025-9905",
    "CVE-2025-9906",
    "CVE-2025-49655",
    "CVE-2025-12058",
    "CVE-2025-12060",
    "CVE-2025-12638",
    "CVE-2026-0897",
    "CVE-2026-1669",
    "CVE-2026-1462",
    "CVE-2026-12479",
    "CVE-2026-12481",
    "CVE-2026-26200",
]
IDS = [s.name for s in SAMPLES]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def inspected(room):
    """Every sample through `inspect`, in one process under an audit hook; the first run is an honest file."""
    honest = ROOT / "fixtures" / "formats" / "keras-3.13.0" / "m.keras"
    options = ["--no-replay", "--fail-on", "warning", "--format", "json"]
    runs = [["inspect", *options, str(path)] for path in (honest, *(HOSTILE / s.name for s in SAMPLES))]
    results = watched(runs, room)
    assert results[0]["status"] in (0, 1)
    return {s.name: r for s, r in zip(SAMPLES, results[1:], strict=True)}


@pytest.fixture(scope="module")
def scanned(room):
    """The whole folder through `scan`, under strace where the system allows it."""
    trace = room / "trace"
    command = [
        sys.executable,
        "-c",
        "from ckptdoctor.cli import main; main()",
        "scan",
        "--format",
        "jsonl",
        "--jobs",
        "1",
        str(HOSTILE),
    ]
    if strace():
        calls = "open,openat,openat2,execve,execveat,socket,connect,bind,sendto,sendmsg"
        command = [strace(), "-f", "-qq", "-s", "400", "-e", f"trace={calls}", "-o", str(trace), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True, timeout=240, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done, {os.path.basename(line["path"]): line for line in lines}, trace


def test_there_is_a_sample_for_each_advisory():
    assert {s.advisory for s in PUBLISHED} == set(ADVISORIES)


def test_the_committed_files_are_those_of_the_script():
    assert {p.name for p in HOSTILE.iterdir()} == {s.name for s in SAMPLES}
    for sample in HIDDEN:
        if sample.name.endswith(".keras"):
            with open_checkpoint(HOSTILE / sample.name) as checkpoint:
                assert not isinstance(checkpoint.info.model_config, Missing)


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_inspect_tells_it(inspected, sample):
    result = inspected[sample.name]
    document = json.loads(result["stdout"])
    told = [f["message"] for f in document["findings"] if f["rule"] == sample.rule]
    assert any(sample.says in message for message in told), (document["findings"], result["stderr"])
    assert result["status"] == sample.status
    assert document["failures"] == []


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_inspect_runs_nothing_and_reaches_for_nothing(inspected, room, sample):
    assert offences(inspected[sample.name]["events"], HOSTILE) == []
    assert not (room / CANARY).exists()


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_scan_shows_it(scanned, sample):
    line = scanned[1][sample.name]
    words = " ".join([*line["warnings"], line["error"] or ""])
    assert sample.says in words
    assert line["kind"] in (None, "damaged")


def test_scan_ends_in_order_and_runs_nothing(scanned, room):
    done, lines, trace = scanned
    assert done.returncode == 2, done.stderr  # some of the samples are damaged beyond reading
    assert "Traceback" not in done.stderr
    assert len(lines) == len(SAMPLES)
    assert not (room / CANARY).exists()
    if strace():
        opened, started, network = system_calls(trace)
        assert network == []
        interpreter = os.path.realpath(sys.executable)
        assert {os.path.realpath(p) for p in started} == {interpreter}
        mine = (HOSTILE, room)
        strangers = [p for p in opened if not harmless(p, *mine) and os.path.basename(p) != "pyproject.toml"]
        assert [p for p in strangers if os.path.isfile(p)] == []


def test_measuring_in_a_worker_runs_nothing_either(room):
    """The same under the audit hook: what a scan's worker does, without the process around it."""
    results = watched([["measure", str(HOSTILE / s.name)] for s in SAMPLES], room)
    for sample, result in zip(SAMPLES, results, strict=True):
        assert offences(result["events"], HOSTILE) == [], sample.name
        assert sample.says in result["stdout"].replace("\\u2026", ""), sample.name


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_replay_refuses_without_trust(sample, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a child process was started")

    try:
        with open_checkpoint(HOSTILE / sample.name) as checkpoint:
            info = checkpoint.info
    except CheckpointError:
        return  # nothing to replay
    hostile = next((p.message for p in info.problems if p.kind is ProblemKind.HOSTILE), "")
    if not sample.refused and not hostile:
        assert any(p.kind is ProblemKind.DAMAGED for p in info.problems)
        return
    monkeypatch.setattr("subprocess.Popen", refuse)
    request = ReplayRequest(
        (CheckpointRef(info.path, info.format.value, 3, hostile=hostile),),
        last_healthy=0,
        model_config=info.model_config or {},
        compile_config=info.compile_config or {},
        batches="last_batches.npz",
    )
    result = run_replay(request, progress=lambda _text: None)
    assert result.status is ReplayStatus.NOT_RUN
    assert "--trust" in result.reason or "--custom-objects" in result.reason
    assert result.refused


def test_the_watch_sees_what_it_watches_for(room):
    """The payload of the samples is alive: run on purpose, it makes its file and the hook tells."""
    live = base64.b64decode(payload())
    results = watched([["payload", live.hex()]], room)
    assert (room / CANARY).exists()
    (room / CANARY).unlink()
    assert [e[0] for e in offences(results[0]["events"], HOSTILE)] == ["open"]
