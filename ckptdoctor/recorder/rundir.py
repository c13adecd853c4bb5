"""The run directory on disk: atomic files, appended logs, a lock, and an earlier failure moved out of the way."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ckptdoctor.model import CkptDoctorError

try:
    import fcntl
except ImportError:  # Windows: two recorders in one directory go unnoticed there
    fcntl = None  # type: ignore[assignment]

RECORD = "recorder.json"
STEPS = "steps.jsonl"
EPOCHS = "training_log.csv"
LOCK = ".ckptdoctor.lock"
_PART = ".ckptdoctor-part-"  # hidden, so that nobody takes an unfinished file for a finished one


class RunDirectoryError(CkptDoctorError):
    """The run directory cannot be used."""


def plain(value: Any) -> Any:
    """`value` as strict JSON: non-finite numbers become strings, numpy numbers Python's, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    return str(value)


class RunDirectory:
    """One writer's hold on a run directory. Every file appears whole or not at all; logs only grow.

    Attributes:
        path: where files go. Differs from what was asked for when that directory is in use by another recorder.
        note: a sentence about such a difference, else "".
    """

    def __init__(self, asked: str | os.PathLike[str]) -> None:
        self.asked = Path(asked)
        self.path = self.asked
        self.note = ""
        self._written: list[Path] = []
        self._lock: BinaryIO | None = None
        self._logs: dict[str, BinaryIO] = {}

    # --- opening and closing ----------------------------------------------------------------

    def open(self) -> None:
        """Create, lock and tidy the directory.

        Raises:
            RunDirectoryError: it cannot be created or written to.
        """
        for attempt in range(1, 1000):
            self.path = self.asked if attempt == 1 else self.asked.with_name(f"{self.asked.name}-{attempt}")
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                taken = not self._take_lock()
            except OSError as error:
                raise RunDirectoryError(
                    f"expected a directory to write to at '{self.path}', found: {error.strerror or error}; "
                    "give FlightRecorder another directory"
                ) from error
            if not taken:
                break
            self.note = f"'{self.asked}' is in use by another recorder"
        else:
            raise RunDirectoryError(f"'{self.asked}' and its 998 substitutes are in use; give another directory")
        if self.path != self.asked:
            self.note += f"; recording to '{self.path}' instead"
        self._tidy()

    def _take_lock(self) -> bool:
        handle = (self.path / LOCK).open("ab")
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                return False
            except OSError:  # a file system without locks: better to record unlocked than not at all
                pass
        self._lock = handle
        with contextlib.suppress(OSError):
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode())
            handle.flush()
        return True

    def _tidy(self) -> None:
        """Remove what a killed writer left unfinished; only we can be writing now, we hold the lock."""
        for leftover in [*self.path.glob(f"{_PART}*"), *self.path.glob(f"*/{_PART}*")]:
            with contextlib.suppress(OSError):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def close(self) -> None:
        """Close the logs and let others write here."""
        for handle in self._logs.values():
            with contextlib.suppress(OSError):
                handle.close()
        self._logs.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- writing ----------------------------------------------------------------------------

    def write(self, relative: str, fill: Callable[[Path], None]) -> Path:
        """Have `fill` write a file (or directory) beside its final place, then move it there in one step.

        Args:
            relative: final path below the run directory.
            fill: gets a path with the same ending; writes a file there, or makes it a directory with files.

        Raises:
            OSError: the disk is full, the directory is gone, …; nothing remains of the attempt.
        """
        final = self.path / relative
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f"{_PART}{os.getpid()}-{final.name}")
        try:
            fill(part)
            if part.is_dir() and final.is_dir():
                shutil.rmtree(final)  # a directory cannot be replaced in one step
            part.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
            raise
        self._written.append(final)
        return final

    def settle(self) -> None:
        """Force what was written to the disk, so that it survives a power failure too.

        Not done file by file and not while training goes on: on a busy disk it takes seconds, and a killed process
        loses nothing without it.
        """
        with contextlib.suppress(OSError):
            for path in dict.fromkeys(self._written):
                if path.exists():
                    _sync(path)
            for parent in dict.fromkeys(p.parent for p in self._written):
                _sync_directory(parent)
        self._written.clear()

    def write_json(self, relative: str, document: Mapping[str, Any]) -> Path:
        """A strict JSON document, one line for each of its parts, atomically."""
        parts = [
            f" {json.dumps(k)}: {json.dumps(v, allow_nan=False, ensure_ascii=False)}"
            for k, v in plain(document).items()
        ]
        text = "{\n" + ",\n".join(parts) + "\n}\n"
        return self.write(relative, lambda path: _write_text(path, text))

    def append(self, relative: str, lines: Iterable[str]) -> None:
        """Add whole lines to a log in one system call, so that a kill can cut the last line at most."""
        data = "".join(line + "\n" for line in lines).encode()
        if not data:
            return
        handle = self._logs.get(relative)
        if handle is None:
            handle = self._logs[relative] = _open_log(self.path / relative)
        handle.write(data)

    def delete(self, relative: str) -> None:
        """Remove one of our own files or directories, if it is there."""
        path = self.path / relative
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    # --- what is there from before ------------------------------------------------------------

    def earlier(self) -> dict[str, Any] | None:
        """The record an earlier recorder left here, or None if there is none that can be read."""
        try:
            found = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def put_aside(self, record: Mapping[str, Any]) -> str | None:
        """Move the evidence of an earlier failure to a run directory of its own below this one.

        Rolling checkpoints are linked there and stay here, because training may resume from them; logs are copied,
        because they go on growing here.

        Returns:
            The new directory's name, or None if there was nothing to keep.
        """
        step = (record.get("reason") or {}).get("step")
        name = f"failure_step_{int(step or 0):08d}"
        target = self.path / name
        for n in range(2, 1000):
            if not target.exists():
                break
            target = self.path / f"{name}-{n}"
        (target / "checkpoints").mkdir(parents=True)
        for entry in record.get("checkpoints", []):
            source = self.path / _inside(str(entry.get("path", "")))
            if source.is_file():
                _link(source, target / "checkpoints" / source.name)
                if entry.get("kind") != "rolling":
                    source.unlink()
        for log in (STEPS, EPOCHS):
            if (self.path / log).is_file():
                shutil.copy2(self.path / log, target / log)
        batches = (record.get("window") or {}).get("batches")
        for moved in (_inside(str(batches)) if batches else None, RECORD):
            if moved and (self.path / moved).exists():
                (self.path / moved).replace(target / moved)
        return target.name


def fallback_directory(asked: Path) -> RunDirectory:
    """A fresh directory among the system's temporary files, for when the run directory takes nothing any more."""
    directory = RunDirectory(tempfile.mkdtemp(prefix=f"ckptdoctor-{asked.name or 'run'}-"))
    directory.open()
    return directory


def timestamp() -> str:
    """Now, in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _inside(relative: str) -> str:
    """`relative` if it stays inside the run directory, else a name that does not exist."""
    path = Path(relative)
    return "\0" if path.is_absolute() or ".." in path.parts else relative


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _open_log(path: Path) -> BinaryIO:
    handle = path.open("ab", buffering=0)
    if handle.tell() > 0:
        with path.open("rb") as reader:
            reader.seek(-1, os.SEEK_END)
            cut = reader.read(1) != b"\n"
        if cut:  # an earlier writer was killed in the middle of a line
            handle.write(b"\n")
    return handle


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _sync_directory(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can open a directory
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
