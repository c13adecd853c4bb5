"""The parent side of replay: start the child, watch it, and make a `Replay` of whatever it could find out."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

from ckptdoctor.model import Phase, Repeat, Replay, ReplayStatus
from ckptdoctor.replay.allowlist import compile_problems, config_problems
from ckptdoctor.replay.request import ReplayError, ReplayRequest
from ckptdoctor.replay.watch import death_sentence, kill_group, resident_bytes
from ckptdoctor.replay.wire import decode, to_plain

Progress = Callable[[str], None]

MAX_LINE = 64 << 20  # bytes of one message; the largest record is under 1 MB
STDERR_KEPT = 64 << 10
POLL_SECONDS = 0.1
TEMPORARY = ("TMPDIR", "TEMP", "TMP")  # where Python and its libraries look for the folder of temporary files
SILENCE_SECONDS = 90.0  # without any message; a compile of a large model takes tens of seconds


def run_replay(request: ReplayRequest, *, progress: Progress) -> Replay:
    """Replay the last batches in a child process.

    A crash, a kill, an out-of-memory or a hang of the child becomes status FAILED with a sentence; what it had
    found by then is kept.

    Args:
        request: what to replay.
        progress: called with a short line when the child begins a stage.

    Raises:
        ReplayError: the request cannot be carried out as put (a GPU that is not there, a malformed `--build`).
    """
    started = time.perf_counter()
    refusal = _reason_not_to_run(request)
    if refusal is not None:
        return refusal
    fused = _recorded_with_onednn(request)
    result = _run_child(request, progress, onednn=fused)
    if _worth_a_second_look(request, result):
        progress(f"replay: the same with{'out' if fused else ''} oneDNN's fused operations")
        other = _run_child(replace(request, quick=True, experiments=False), progress, onednn=not fused)
        result = _with_disagreement(result, other, fused=fused)
    if request.window_unused and result.repeat is None:
        result = replace(result, repeat=Repeat("not used", request.window_unused))
    return replace(result, seconds=time.perf_counter() - started)


def _run_child(request: ReplayRequest, progress: Progress, *, onednn: bool = False) -> Replay:
    progress("replay: starting TensorFlow")
    child = _Child(request, onednn=onednn)
    try:
        child.follow(progress)
    finally:
        child.close()
    if child.usage_error:
        raise ReplayError(child.usage_error)
    return child.result()


def _worth_a_second_look(request: ReplayRequest, result: Replay) -> bool:
    """Fused operations hide a NaN or make one: look where an input holds NaN, or where a known failure did not show."""
    if result.device.startswith("GPU") or result.custom_loss:
        return False
    point = result.first_bad
    if result.status is ReplayStatus.REPRODUCED and point is not None:
        return point.phase is Phase.INPUT and (point.variable or "").startswith("x")
    return result.status is ReplayStatus.NOT_REPRODUCED and request.failed


def _recorded_with_onednn(request: ReplayRequest) -> bool:
    """Whether a recorded run is repeated with oneDNN's operations, as it was trained: the last bits depend on it.

    Without a recording they are off. TensorFlow's own default is on for x86 processors under Linux.
    """
    if request.window is None:
        return False
    said = request.environment.get("onednn", "default")
    return said == "1" or (said == "default" and sys.platform == "linux" and platform.machine() == "x86_64")


def _with_disagreement(result: Replay, other: Replay, *, fused: bool) -> Replay:
    """The replay with a sentence on what the other mode showed instead; `fused` tells which one `result` ran in."""
    text = _disagreement(other, result) if fused else _disagreement(result, other)
    if not text:
        return result
    mode = f"{result.mode}; compared with oneDNN {'off' if fused else 'on'}"
    return replace(result, disagreement="; ".join(t for t in (result.disagreement, text) if t), mode=mode)


def _disagreement(plain: Replay, fused: Replay) -> str:
    """What the fused mode shows and the plain one does not, or the reverse; empty where they agree."""
    ran = (ReplayStatus.REPRODUCED, ReplayStatus.NOT_REPRODUCED)
    if fused.status not in ran or plain.status not in ran:
        return ""
    last = fused.records[-1] if fused.records else None
    if plain.status is ReplayStatus.REPRODUCED and fused.status is ReplayStatus.NOT_REPRODUCED:
        return "with oneDNN's fused operations the same batches give no non-finite value: they turn NaN into 0 on a CPU"
    if plain.status is ReplayStatus.REPRODUCED and last is not None and math.isfinite(last.loss):
        return (
            f"with oneDNN's fused operations the loss of the failing step stays finite ({last.loss:.4g}) while its gradient or "
            "weights do not: on a CPU the log hides the first bad step"
        )
    if plain.status is ReplayStatus.NOT_REPRODUCED and fused.status is ReplayStatus.REPRODUCED:
        return f"with oneDNN's fused operations step {fused.steps} goes non-finite, without them nothing does"
    return ""


def _reason_not_to_run(request: ReplayRequest) -> Replay | None:
    device = request.device
    if device not in ("auto", "cpu", "gpu") and not (device.startswith("gpu:") and device[4:].isdigit()):
        raise ReplayError(f"--device takes auto, cpu, gpu or gpu:N, not '{device}'")
    if request.build is not None:
        module, _, function = request.build.partition(":")
        if not module or not function:
            raise ReplayError(f"--build takes MODULE:FUNCTION, for example train:make_model, not '{request.build}'")
    if request.batches is None:
        return _not_run(
            "no recorded batches: keep them with the recorder callback, or save x and y of the last batches in "
            "last_batches.npz"
        )
    if not request.checkpoints:
        return _not_run("no readable checkpoint to start from")
    if request.model_config is None and request.build is None:
        return _not_run(
            "no checkpoint of this run holds the model's configuration (weights only); "
            "name a function that builds the model with --build MODULE:FUNCTION"
        )
    if importlib.util.find_spec("tensorflow") is None:
        return _not_run("TensorFlow is not installed; replay needs it: pip install 'ckptdoctor[replay]'")
    return _refused(request)


def _refused(request: ReplayRequest) -> Replay | None:
    """Refuse files that mislead libraries, and configurations that would run somebody's code, unless the user trusts them.

    A model that the user builds needs no configuration, but its weights still come from the file.
    """
    if request.trust:
        return None
    hostile = next((c for c in request.checkpoints if c.hostile), None)
    if hostile is not None:
        reason = f"{hostile.path} was not handed to Keras: {hostile.hostile.rstrip('.')}; replay with --trust if you trust the file"
        return replace(_not_run(reason), refused=(hostile.hostile,))
    if request.build is not None:
        return None
    model = {k: v for k, v in (request.model_config or {}).items() if k != "compile_config"}
    problems = [
        p
        for p in (
            *config_problems(model),
            *(c for c in compile_problems(request.compile_config) if not c.custom),
        )
        if not (p.custom and (request.custom_objects or p.removable))
    ]
    if not problems:
        return None
    first, more = problems[0], len(problems) - 1
    remedy = (
        "give the module that defines it with --custom-objects, if you trust it"
        if first.custom
        else "rebuild it with --trust if you trust the file"
    )
    reason = f"the configuration was not rebuilt: {first.reason} (at {first.address}){f', and {more} more' if more else ''}; {remedy}"
    return replace(_not_run(reason), refused=tuple(f"{p.reason} (at {p.address})" for p in problems[:64]))


def _not_run(reason: str) -> Replay:
    return Replay(ReplayStatus.NOT_RUN, reason)


class _Child:
    """The child process and what it has said so far."""

    def __init__(self, request: ReplayRequest, *, onednn: bool = False) -> None:
        self.request = request
        self.fields: dict[str, Any] = {}
        self.usage_error = ""
        self.stage = "starting TensorFlow"
        self.killed_because = ""
        self._finished = False
        self._stderr = bytearray()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # TensorFlow writes the code it generates to temporary files, and removes them only where a process ends in peace.
        self._scratch = tempfile.TemporaryDirectory(prefix="ckptdoctor-replay-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ckptdoctor.replay.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(request, onednn=onednn) | dict.fromkeys(TEMPORARY, self._scratch.name),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(to_plain(request)).encode())
            self._process.stdin.close()

    def _read_lines(self, stream: IO[bytes]) -> None:
        while line := stream.readline(MAX_LINE):
            self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        while block := stream.read1(8192) if hasattr(stream, "read1") else stream.read(8192):
            self._stderr += block
            del self._stderr[:-STDERR_KEPT]

    def follow(self, progress: Progress) -> None:
        """Take messages until the child is done, dead, or over a limit."""
        started = last_word = time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                self.killed_because = self._over_limit(now - started, now - last_word)
                if self.killed_because:
                    kill_group(self._process)
                    return
                continue
            if line is None:
                self._process.wait(timeout=30)
                return
            last_word = time.monotonic()
            if last_word - started > self.request.wall_seconds:
                self.killed_because = self._over_limit(last_word - started, 0)
                kill_group(self._process)
                return
            self._take(line, progress)

    def _over_limit(self, seconds: float, silence: float) -> str:
        if seconds > self.request.wall_seconds:
            return f"took longer than its {self.request.wall_seconds:.0f} seconds and was stopped"
        if silence > SILENCE_SECONDS:
            return f"said nothing for {SILENCE_SECONDS:.0f} seconds and was stopped"
        resident = resident_bytes(self._process.pid)
        if resident > self.request.memory_bytes:
            return (
                f"was stopped at {resident / 2**30:.1f} GB of memory "
                f"(the limit is {self.request.memory_bytes / 2**30:.1f} GB)"
            )
        return ""

    def _take(self, line: bytes, progress: Progress) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return  # something in the child printed; it is not for us
        if not isinstance(message, dict):
            return
        if isinstance(message.get("stage"), str):
            self.stage = message["stage"]
            progress(f"replay: {self.stage}")
        if isinstance(message.get("fields"), dict):
            self.fields.update(message["fields"])
        if isinstance(message.get("usage"), str):
            self.usage_error = message["usage"]
        self._finished = self._finished or bool(message.get("done"))

    def result(self) -> Replay:
        """The replay as far as it came."""
        fields = dict(self.fields)
        if not self._finished:
            how = self.killed_because or death_sentence(self._process.returncode or 0, self._text())
            fields["reason"] = f"the replay process {how} while {self.stage}" + (
                "; what it had found by then is kept" if fields.get("first_bad") else ""
            )
            fields["status"] = ReplayStatus.FAILED.value
        try:
            return decode(Replay, fields)
        except (TypeError, ValueError) as error:
            return Replay(ReplayStatus.FAILED, f"the replay process sent something unexpected ({error})")

    def _text(self) -> str:
        return bytes(self._stderr).decode("utf-8", "replace")

    def close(self) -> None:
        """Leave no process, no thread and no file behind."""
        kill_group(self._process)
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._scratch.cleanup()


def child_environment(request: ReplayRequest, *, onednn: bool = False) -> dict[str, str]:
    """The child's environment: everything that must be set before TensorFlow is imported.

    oneDNN is off because its fused Dense+relu turns NaN into 0 on a CPU; TF32 is off because it is not float32.
    """
    env = dict(os.environ)
    env.update(
        TF_ENABLE_ONEDNN_OPTS="1" if onednn else "0",
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_DETERMINISTIC_OPS="1",
        TF_FORCE_GPU_ALLOW_GROWTH="true",
        NVIDIA_TF32_OVERRIDE="0",
        KERAS_BACKEND="tensorflow",
        PYTHONHASHSEED="0",
        PYTHONUNBUFFERED="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    env.pop("TF_USE_LEGACY_KERAS", None)
    env.pop("TF_XLA_FLAGS", None)
    if request.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = "-1"
    return env
