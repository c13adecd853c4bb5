"""One checkpoint's line: the result of a scan, and its strict JSON form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ckptdoctor.model import CkptDoctorError, Status

KEYS = (
    "path",
    "run",
    "status",
    "nonfinite",
    "cause",
    "confidence",
    "layer",
    "epoch",
    "step",
    "size_bytes",
    "seconds",
    "error",
    "kind",
    "variable",
    "grade",
    "headline",
    "format",
    "warnings",
    "bytes_read",
    "modified",
    "etag",
    "report",
)
"""The keys of a line, in order. The first twelve are the contract; the rest was added and may grow."""


class Kind(str, Enum):
    """Why a checkpoint could not be measured."""

    DAMAGED = "damaged"  # cut off, corrupted, refused: the file itself
    FOREIGN = "foreign"  # a sound file of another kind, which the user named as a checkpoint
    CRASHED = "crashed"  # a worker died of it
    TIMEOUT = "timeout"  # a worker did not come back in time
    BLOATED = "bloated"  # a worker needed more memory than allowed
    DENIED = "denied"  # permission
    VANISHED = "vanished"  # it was listed and then gone
    WRITING = "writing"  # it kept changing
    LOOP = "loop"  # a loop of links
    REMOTE = "remote"  # a store that refuses, stalls or breaks off
    LOST = "lost"  # the cluster lost it

    @property
    def lasting(self) -> bool:
        """Whether looking again at the unchanged file would say the same."""
        return self in (Kind.DAMAGED, Kind.FOREIGN)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan says of one checkpoint.

    Attributes:
        path: as it was found; for remote objects the URL.
        run: the run it belongs to: the directory that holds it (or holds its `checkpoints/`).
        status: healthy, sick or unreadable.
        nonfinite: NaN and infinite entries in weights, statistics, slots and optimizer scalars.
        cause: word of the vocabulary; `healthy`, or None where nothing could be judged.
        confidence: of the cause, 0 to 1; None where nothing was judged.
        layer, variable: the origin as far as one checkpoint tells it.
        epoch: from the container, else from the name. step: the optimizer's iteration count.
        seconds: wall time of the measurement.
        error: one sentence, for unreadable ones. kind: its sort.
        grade: how the cause was established. headline: one sentence about a sick one.
        format: the container.
        warnings: `CODE: sentence` of every finding from severity warning on, malice first.
        bytes_read: bytes that were read for it.
        modified: time of modification in UTC with nanoseconds, None where the store tells none.
        etag: content id of a remote object.
        report: path of the full report, where one was asked for.
    """

    path: str
    run: str
    status: Status
    nonfinite: int = 0
    cause: str | None = None
    confidence: float | None = None
    layer: str | None = None
    epoch: int | None = None
    step: int | None = None
    size_bytes: int = 0
    seconds: float = 0.0
    error: str | None = None
    kind: Kind | None = None
    variable: str | None = None
    grade: str | None = None
    headline: str | None = None
    format: str | None = None
    warnings: tuple[str, ...] = ()
    bytes_read: int = 0
    modified: str | None = None
    etag: str | None = None
    report: str | None = None

    @property
    def lasting(self) -> bool:
        """Whether a scan that resumes may keep this result while the file is unchanged."""
        return self.kind is None or self.kind.lasting

    @property
    def identity(self) -> str:
        """Path, size, time and content id in one string: equal means unchanged."""
        return identity(self.path, self.size_bytes, self.modified, self.etag)

    def as_dict(self) -> dict[str, Any]:
        """The line as an object; numbers are finite or the strings of the JSON document."""
        out: dict[str, Any] = {}
        for key in KEYS:
            value = getattr(self, key)
            if isinstance(value, Enum):
                value = value.value
            elif isinstance(value, float) and not math.isfinite(value):
                value = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
            elif isinstance(value, tuple):
                value = list(value)
            out[key] = value
        return out

    def line(self) -> str:
        """One line of strict JSON in ASCII, with its newline. Bytes of names that are no UTF-8 survive as escapes."""
        return json.dumps(self.as_dict(), ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


def identity(path: str, size: int, modified: str | None, etag: str | None) -> str:
    """Path, size, time and content id in one string: equal means unchanged."""
    return f"{path}\0{size}\0{modified or ''}\0{etag or ''}"


def from_dict(data: Mapping[str, Any]) -> ScanResult:
    """The result that `as_dict` wrote; unknown keys of newer versions are ignored.

    Raises:
        CkptDoctorError: not such an object.
    """
    get = data.get
    try:
        kind = get("kind")
        return ScanResult(
            _text(data["path"]),
            _text(data["run"]),
            Status(data["status"]),
            int(get("nonfinite") or 0),
            get("cause"),
            get("confidence"),
            get("layer"),
            get("epoch"),
            get("step"),
            int(get("size_bytes") or 0),
            float(get("seconds") or 0.0),
            get("error"),
            Kind(kind) if kind else None,
            get("variable"),
            get("grade"),
            get("headline"),
            get("format"),
            tuple(get("warnings") or ()),
            int(get("bytes_read") or 0),
            get("modified"),
            get("etag"),
            get("report"),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CkptDoctorError(
            f"expected a line of `ckptdoctor scan --format jsonl`, found something else ({error!r})"
        ) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value


def parse_line(line: str | bytes) -> ScanResult:
    """The result that stands in one line.

    Raises:
        CkptDoctorError: not such a line.
    """
    return from_dict(_object(line))


def path_in_line(line: str | bytes) -> str:
    """The path that a line is about, and nothing else of it: for looking through many lines.

    Raises:
        CkptDoctorError: not such a line.
    """
    data = _object(line)
    path = data.get("path")
    if not isinstance(path, str) or data.get("status") not in _STATUSES or not isinstance(data.get("run"), str):
        raise CkptDoctorError("expected a line of `ckptdoctor scan --format jsonl`, found another object")
    return path


_STATUSES = frozenset(status.value for status in Status)


def _object(line: str | bytes) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError):
        raise CkptDoctorError(
            "expected a line of `ckptdoctor scan --format jsonl`, found text that is no JSON"
        ) from None
    if not isinstance(data, dict):
        raise CkptDoctorError("expected a line of `ckptdoctor scan --format jsonl`, found JSON that is no object")
    return data
