"""MLflow runs: the file store (`mlruns/<experiment>/<run>/metrics/<key>`) and the SQLite store."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ckptdoctor.logs.series import MAX_SERIES, LogBuilder, LogError
from ckptdoctor.logs.spelling import to_number
from ckptdoctor.logs.text import LineReader, is_dir, is_file
from ckptdoctor.model import TrainingLog

MAX_RUNS = 10_000
MAX_SECONDS = 120.0
"""Longest a query may take: a database is a program of sorts, and a hostile one need not end."""

_DOUBLE_MAX = 1.7976931348623157e308  # the SQLite store writes infinities as the largest double
_SQLITE = b"SQLite format 3\0"


def is_sqlite(data: bytes) -> bool:
    """Whether a file begins as an SQLite database."""
    return data.startswith(_SQLITE)


def is_file_store(path: str) -> bool:
    """Whether a directory is a run of the file store, or an experiment or store with such runs."""
    return next(_runs(path), None) is not None


def read_mlflow_files(path: str) -> TrainingLog:
    """Read one run of the file store: the directory itself, or the run below it that was written last.

    Raises:
        LogError: no run with metrics there.
    """
    runs = sorted(_runs(path), key=_changed)
    if not runs:
        raise LogError(f"expected an MLflow run (a directory with meta.yaml and metrics/), found none in {path}")
    log = LogBuilder(path, "mlflow")
    if len(runs) > 1:
        log.note(f"{len(runs):,} runs are stored here; the one written last was read: {Path(runs[-1]).name}")
    metrics = str(Path(runs[-1], "metrics"))
    files = sorted(
        str(Path(folder, name))
        for folder, _, names in os.walk(metrics)
        for name in names[:MAX_SERIES]
        if not name.startswith(".")
    )
    for file in files[:MAX_SERIES]:
        _read_metric(file, Path(file).relative_to(metrics).as_posix(), log)
    return log.build()


def _runs(path: str) -> Iterator[str]:
    """Run directories at most two levels down."""
    level = [path]
    seen = 0
    for _ in range(3):
        below: list[str] = []
        for folder in level:
            if is_file(f"{folder}/meta.yaml") and is_dir(f"{folder}/metrics"):
                yield folder
                continue
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MAX_RUNS:
                        return
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        level = below


def _changed(run: str) -> tuple[float, str]:
    try:
        return max((e.stat().st_mtime for e in os.scandir(f"{run}/metrics")), default=0.0), run
    except OSError:
        return 0.0, run


def _read_metric(file: str, name: str, log: LogBuilder) -> None:
    """A file of lines `time value step`, in the order they were logged."""
    builder = log.series(name, "step")
    if builder is None:
        return
    last = float("-inf")
    position = 0
    for lines in LineReader(file):
        for line in lines:
            parts = line.decode("utf-8", "replace").split()
            value = to_number(parts[1]) if len(parts) >= 2 else None
            if value is None:
                if parts:
                    log.note(f"lines of {name!r} that are not 'time value step' were skipped")
                continue
            step = to_number(parts[2]) if len(parts) > 2 else None
            at = float(position) if step is None or step - step != 0 else step
            if at < last:
                log.restart(at)
            last = at
            builder.add(at, value)
            position += 1


def read_mlflow_sqlite(path: str) -> TrainingLog:
    """Read the run of an MLflow SQLite store that was logged to last. `is_nan` rows are NaN, whatever their value.

    Raises:
        LogError: not such a database, damaged, or too slow to read.
    """
    log = LogBuilder(path, "mlflow-sqlite")
    try:
        with _opened(path) as database:
            _read_database(database, path, log)
    except (sqlite3.Error, OverflowError, ValueError) as error:
        raise LogError(f"expected an MLflow database, found one that SQLite cannot read ({error}): {path}") from error
    return log.build()


def has_metrics_table(path: str) -> bool:
    """Whether an SQLite file has MLflow's table of metrics."""
    try:
        with _opened(path) as database:
            return _is_plain_table(database)
    except (sqlite3.Error, ValueError):
        return False


@contextlib.contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    """A database that is read only, leaves no files beside it, and gives up after `MAX_SECONDS`."""
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        until = time.monotonic() + MAX_SECONDS
        database.set_progress_handler(lambda: time.monotonic() > until, 100_000)
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        yield database


def _is_plain_table(database: sqlite3.Connection) -> bool:
    """A table, not a view or virtual table: those run code of the database's choosing."""
    database.execute("PRAGMA trusted_schema = OFF")
    row = database.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'metrics'").fetchone()
    sql = str(row[0]).upper() if row else ""
    if not sql.startswith("CREATE TABLE") or "GENERATED" in sql or " AS (" in sql:
        return False
    columns = {str(r[1]) for r in database.execute("PRAGMA table_info(metrics)")}
    return {"key", "value", "run_uuid", "step"} <= columns


def _read_database(database: sqlite3.Connection, path: str, log: LogBuilder) -> None:
    if not _is_plain_table(database):
        raise LogError(f"expected an MLflow database, found one without MLflow's table of metrics: {path}")
    columns = {str(r[1]) for r in database.execute("PRAGMA table_info(metrics)")}
    newest = "max(timestamp)" if "timestamp" in columns else "max(rowid)"
    runs = database.execute(
        f"SELECT run_uuid FROM metrics GROUP BY run_uuid ORDER BY {newest} DESC LIMIT {MAX_RUNS}"  # noqa: S608 - `newest` is one of two constants
    ).fetchall()
    if not runs:
        log.note("the database holds no metric")
        return
    if len(runs) > 1:
        log.note(f"{len(runs):,} runs are stored here; the one logged to last was read: {str(runs[0][0])[:64]}")
    is_nan = "is_nan" if "is_nan" in columns else "0"
    last: dict[str, float] = {}
    query = f"SELECT key, value, step, {is_nan} FROM metrics WHERE run_uuid = ? ORDER BY rowid"  # noqa: S608 - `is_nan` is one of two constants
    for key, value, step, nan in database.execute(query, (runs[0][0],)):
        number = _stored(value, nan)
        builder = log.series(str(key), "step")
        if number is None or builder is None:
            continue
        at = float(step) if isinstance(step, int | float) else float(builder.count)
        if at < last.get(builder.name, float("-inf")):
            log.restart(at)
        if len(last) <= MAX_SERIES:
            last[builder.name] = at
        builder.add(at, number)


def _stored(value: object, nan: object) -> float | None:
    if nan:
        return float("nan")
    if not isinstance(value, int | float):
        return to_number(value) if isinstance(value, str) else None
    if abs(value) >= _DOUBLE_MAX:
        return float("inf") if value > 0 else float("-inf")
    return float(value)
