"""What a worker does with one checkpoint: look, measure, judge, look again. Plain objects in and out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ckptdoctor.model import (
    Census,
    CkptDoctorError,
    Diagnosis,
    Evidence,
    Finding,
    Missing,
    ProblemKind,
    RunFiles,
    Severity,
    Status,
)
from ckptdoctor.scanner.identify import Identity, identify
from ckptdoctor.scanner.names import epoch_in_name
from ckptdoctor.scanner.result import Kind
from ckptdoctor.scanner.walk import os_trouble

if TYPE_CHECKING:
    from ckptdoctor.checkpoints.contract import Checkpoint
    from ckptdoctor.rules.registry import Outcome
    from ckptdoctor.scanner.remote import RemoteOpener

FRESH = 10.0  # seconds: a file that cannot be read and is younger than this may still be on its way
LARGE = 32 << 20  # bytes from which a single file is worth more than one thread
WARNINGS_LIMIT = 20
SENTENCE_LIMIT = 600  # characters of one sentence of a line; hostile names can be as long as they like

Answer = dict[str, Any]


def prepare() -> None:
    """Import what every measurement needs: a broken installation shows before the first file is blamed for it."""
    import ckptdoctor.checkpoints
    import ckptdoctor.diagnosis
    import ckptdoctor.evidence.census
    import ckptdoctor.evidence.config
    import ckptdoctor.evidence.fingerprint
    import ckptdoctor.evidence.optimizer  # noqa: F401
    from ckptdoctor.rules.registry import all_rules

    all_rules()


def measure(task: dict[str, Any]) -> Answer:
    """Measure and judge one checkpoint.

    Args:
        task: `path`, `members` (further files beside it), `remote` (a URL), `first` (`[size, modified]` at an earlier
            attempt, or None), `reports` (directory for full reports, or None), `select`, `ignore`, `thresholds`
            (of rules), `read_limits` (by name), `now` is taken from the clock.

    Returns:
        The keys of a `ScanResult` but `path` and `run`, and `unsettled`: True where the file seems to be changing and
        deserves a second look.
    """
    from ckptdoctor.checkpoints.limits import use_limits

    started = time.perf_counter()
    try:
        with use_limits(task.get("read_limits") or {}):
            store = _Store(task)
            answer = _settled(store, task)
    except MemoryError:
        answer = _unreadable(
            Kind.BLOATED, f"{task['path']}: more memory needed than a worker may take; raise --memory if you trust it"
        )
    except Exception as error:  # noqa: BLE001 - a fault of ours costs this file only, and is told
        words = f"{task['path']}: ckptdoctor failed on it ({type(error).__name__}: {error}); please report this with the file"
        answer = _unreadable(Kind.CRASHED, words)
    answer["seconds"] = round(time.perf_counter() - started, 6)
    return answer


class _Store:
    """Where one checkpoint lies: this machine's files, or behind a URL."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.path: str = task["path"]
        self._members: Sequence[str] = task.get("members") or ()
        self._known: Sequence[Any] | None = task.get("identity")
        self.remote: bool = bool(task.get("remote"))
        self._opener: RemoteOpener | None = None
        if self.remote:
            from ckptdoctor.scanner.remote import RemoteOpener

            opener = RemoteOpener(timeout=float(task.get("request_timeout") or 30.0))
            if self._known is not None and not (self._members or task.get("directory") or task.get("first")):
                opener.know(self.path, Identity(self._known[0], self._known[1], self._known[2]))
            self._opener = opener

    @property
    def threads(self) -> int | None:
        """For reading: as many as a store answers at a time; None for local files."""
        if self._opener is None:
            return None
        from ckptdoctor.scanner.remote import REMOTE_THREADS

        return REMOTE_THREADS

    @property
    def may_have_changed(self) -> bool:
        """Whether what was read may come from two states: not where one request brought all of a remote object."""
        return self._opener is None or self._opener.requests > 1

    def look(self, *, again: bool) -> Identity:
        """Size and time now. The listing has just told those of a remote object: it is not asked twice before."""
        if self._opener is None:
            return identify(self.path, self._members)
        if not again and self._known is not None:
            return Identity(self._known[0], self._known[1], self._known[2])
        return self._opener.identify(self.path, self._members)

    def open(self) -> Checkpoint:
        from ckptdoctor.checkpoints import open_checkpoint

        return open_checkpoint(self.path, opener=self._opener)


def _settled(store: _Store, task: dict[str, Any]) -> Answer:
    """Measure, and make sure that what was measured stood still meanwhile."""
    try:
        before = store.look(again=bool(task.get("first")))
        try:
            answer = _examine(store, task)
        except CkptDoctorError as error:
            answer = _refused(store, error)
        damaged = answer.get("kind") == Kind.DAMAGED.value
        after = store.look(again=True) if damaged or store.may_have_changed else before
    except (OSError, ValueError) as error:
        trouble = os_trouble(store.path, "", error)
        return _unreadable(trouble.kind, trouble.message)
    except CkptDoctorError as error:  # of looking at a remote object
        return _unreadable(getattr(error, "kind", Kind.REMOTE), str(error))
    first = Identity(*task["first"]) if task.get("first") else None
    moved = not before.same(after)
    changed = moved or (first is not None and not before.same(first))
    if moved or (damaged and (changed or (first is None and _fresh(after)))):
        if first is None:
            answer = {**answer, "unsettled": True, "first": [before.size, before.modified_ns, before.etag]}
        else:
            words = f"{store.path} is still being written (it had {first.size:,} bytes, then {after.size:,}); scan again later"
            answer = _unreadable(Kind.WRITING, words)
    answer |= {"size_bytes": before.size, "modified": before.modified, "etag": before.etag}
    return answer


def _refused(store: _Store, error: CkptDoctorError) -> Answer:
    """What to say of a file that no reader would open: the system may have refused it, not the reader."""
    from ckptdoctor.checkpoints import NotACheckpointError

    own = Kind.FOREIGN if isinstance(error, NotACheckpointError) else Kind.DAMAGED
    if store.remote:
        return _unreadable(getattr(error, "kind", own), str(error))
    try:
        os.close(os.open(store.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)))
    except OSError as reason:
        trouble = os_trouble(store.path, "", reason)
        return _unreadable(trouble.kind, trouble.message)
    return _unreadable(own, str(error))


def _fresh(found: Identity) -> bool:
    return found.modified_ns is not None and abs(time.time() - found.modified_ns / 1e9) < FRESH


def _unreadable(kind: Kind, message: str) -> Answer:
    return {"status": Status.UNREADABLE.value, "kind": kind.value, "error": message[:SENTENCE_LIMIT]}


def _examine(store: _Store, task: dict[str, Any]) -> Answer:
    """The verdict on one checkpoint.

    Raises:
        CkptDoctorError: it cannot be opened.
    """
    from ckptdoctor.evidence.census import take_census

    with store.open() as checkpoint:
        large = checkpoint.info.size_bytes >= LARGE
        census = take_census(checkpoint, threads=store.threads or (None if large else 1))
        evidence = _evidence(store.path, census, checkpoint)
    return _judge(store, evidence, census, task)


def _evidence(path: str, census: Census, checkpoint: Checkpoint) -> Evidence:
    from ckptdoctor.evidence.config import read_spec
    from ckptdoctor.evidence.fingerprint import fingerprint
    from ckptdoctor.evidence.optimizer import optimizer_state

    spec = read_spec(census.info)
    return Evidence(
        files=RunFiles(path, (path,), (), ()),
        census=census,
        spec=spec,
        fingerprint=fingerprint(census, spec),
        optimizer=optimizer_state(census, spec, checkpoint),
    )


def _judge(store: _Store, evidence: Evidence, census: Census, task: dict[str, Any]) -> Answer:
    from ckptdoctor.diagnosis import conclude
    from ckptdoctor.rules.registry import run_rules

    outcome = run_rules(
        evidence,
        select=task.get("select") or (),
        ignore=task.get("ignore") or (),
        overrides=task.get("thresholds") or {},
    )
    diagnosis = conclude(outcome, evidence)
    verdict = diagnosis.verdict
    answer: Answer = {
        "status": verdict.status.value,
        "nonfinite": census.nonfinite,
        "cause": verdict.cause.value,
        "confidence": round(verdict.confidence, 4),
        "grade": verdict.grade.value,
        "epoch": census.info.epoch if isinstance(census.info.epoch, int) else epoch_in_name(store.path),
        "step": census.iterations,
        "format": census.info.format.value,
        "bytes_read": census.bytes_read,
        "warnings": _warnings(outcome.findings, census),
    }
    if verdict.status is Status.UNREADABLE:
        return answer | _unreadable(Kind.DAMAGED, _why_unreadable(store.path, census, verdict.headline))
    if verdict.status is Status.SICK:
        answer |= _where(evidence, diagnosis)
        answer["headline"] = verdict.headline[:SENTENCE_LIMIT]
        if task.get("reports"):
            answer |= _report(store, evidence, outcome, diagnosis, task["reports"], answer["warnings"])
    elif damage := [p.message for p in census.info.problems if p.kind is ProblemKind.DAMAGED]:
        return answer | _unreadable(Kind.DAMAGED, _why_unreadable(store.path, census, damage[0]))
    return answer


def _report(
    store: _Store, evidence: Evidence, outcome: Outcome, diagnosis: Diagnosis, folder: str, warnings: list[str]
) -> Answer:
    """The path of the full report; a warning where it cannot be written, which is no fault of the checkpoint."""
    from ckptdoctor.scanner.reports import write_report

    try:
        return {"report": write_report(store.path, folder, evidence, outcome, diagnosis, remote=store.remote)}
    except CkptDoctorError as error:
        return {"warnings": [*warnings, f"report: {error}"]}


def _where(evidence: Evidence, diagnosis: Diagnosis) -> Answer:
    """The layer and variable it is about: the origin, else what is nearest to the input, else the worst tensor."""
    layer, variable = diagnosis.origin.layer, diagnosis.origin.variable
    if layer is None and not isinstance(evidence.fingerprint, Missing):
        layer = evidence.fingerprint.first_layer
    if isinstance(evidence.census, Census) and (layer is None or variable is None):
        bad = [t for t in evidence.census.tensors if t.nonfinite and (layer is None or t.info.layer == layer)]
        if bad:
            layer = layer or bad[0].info.layer
            variable = variable or bad[0].info.variable
    return {"layer": layer, "variable": variable}


def _warnings(findings: Sequence[Finding], census: Census) -> list[str]:
    """What is odd or hostile about a file without making it sick, the file's own matters first.

    Every rule has its turn before one has a second: a flood of one finding must not push another one out of the line.
    """
    turns = Counter[str]()
    ranked: list[tuple[tuple[bool, int, int], Finding]] = []
    for finding in findings:
        if finding.severity >= Severity.WARNING:
            ranked.append(((not finding.rule.startswith("CKD7"), turns[finding.rule], -finding.severity), finding))
            turns[finding.rule] += 1
    seen = [finding for _, finding in sorted(ranked, key=lambda entry: entry[0])]
    words = [f"{f.rule}: {f.message}" for f in seen]
    told = any(f.rule.startswith("CKD7") for f in seen)
    if not told:
        words = [f"hostile: {p.message}" for p in census.info.problems if p.kind is ProblemKind.HOSTILE] + words
    return [w if len(w) <= SENTENCE_LIMIT else w[: SENTENCE_LIMIT - 1] + "…" for w in words[:WARNINGS_LIMIT]]


def _why_unreadable(path: str, census: Census, words: str) -> str:
    name = os.path.basename(path.rstrip("/"))
    sentence = path + words[len(name) :] if words.startswith(name) else f"{path}: {words.removeprefix(f'{path}: ')}"
    if census.info.coverage < 1.0 and "%" not in sentence:
        sentence += f" ({census.info.coverage:.0%} of its tensor bytes could be located)"
    return sentence
