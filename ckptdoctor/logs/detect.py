"""Which format a log is in, by its content."""

from __future__ import annotations

import os
from collections.abc import Callable

from ckptdoctor.logs.axes import is_axis, looks_like_metric
from ckptdoctor.logs.console import looks_like_console, read_console
from ckptdoctor.logs.csvlog import looks_like_table, read_csv
from ckptdoctor.logs.history import leaves, list_place, read_history
from ckptdoctor.logs.jsonl import parse_line, read_jsonl
from ckptdoctor.logs.mlflow import has_metrics_table, is_file_store, is_sqlite, read_mlflow_files, read_mlflow_sqlite
from ckptdoctor.logs.records import as_number, flatten
from ckptdoctor.logs.series import LogError
from ckptdoctor.logs.tensorboard import event_files, is_event_file, read_tensorboard
from ckptdoctor.logs.text import blocks, head, is_dir, raw_head
from ckptdoctor.logs.wandb import is_wandb, read_wandb
from ckptdoctor.model import TrainingLog

SNIFF = 1 << 16
SNIFF_CONSOLE = 1 << 23
"""How far a text is searched for training output: captures begin with pages of start-up messages."""

_READERS: dict[str, Callable[[str], TrainingLog]] = {
    "csv": read_csv,
    "history-json": read_history,
    "jsonl": read_jsonl,
    "tensorboard": read_tensorboard,
    "console": read_console,
    "mlflow": read_mlflow_files,
    "mlflow-sqlite": read_mlflow_sqlite,
    "wandb": read_wandb,
}


def detect_log(path: str | os.PathLike[str]) -> str | None:
    """The format of a training log, by content: a key of `TrainingLog.format`, or None. Never raises for a bad file."""
    path = os.fspath(path)
    try:
        if is_dir(path):
            return _detect_directory(path)
        raw = raw_head(path, SNIFF)
        if not raw:
            return None
        if is_sqlite(raw):
            return "mlflow-sqlite" if has_metrics_table(path) else None
        if is_wandb(raw):
            return "wandb"
        if is_event_file(raw):
            return "tensorboard"
        return _detect_text(path, raw)
    except (OSError, LogError):
        return None


def read_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read a training log of any known format: a file, or a directory of TensorBoard or MLflow.

    Raises:
        LogError: absent, unreadable, or not a log of a known format.
    """
    path = os.fspath(path)
    if not os.path.lexists(path):
        raise LogError(f"there is no log at {path}")
    kind = detect_log(path)
    if kind is None:
        kind = _lenient(path)
    return _READERS[kind](path)


def _detect_directory(path: str) -> str | None:
    for name in event_files(path)[:50]:
        if detect_log(name) == "tensorboard":
            return "tensorboard"
    return "mlflow" if is_file_store(path) else None


def _detect_text(path: str, raw: bytes) -> str | None:
    data = head(path, SNIFF)
    if not _looks_like_text(data):
        return None
    stripped = data.lstrip()
    if stripped[:1] in (b"{", b"["):
        return _detect_json(path, stripped)
    lines = data.replace(b"\r", b"\n").split(b"\n")
    first = [line.decode("utf-8", "replace") for line in lines[:200]]
    if looks_like_table(first):
        return "csv"
    if looks_like_console(data):
        return "console"
    if len(raw) == SNIFF:
        return _search_console(path)
    return None


def _search_console(path: str) -> str | None:
    read = 0
    tail = b""
    for block in blocks(path):
        if not _looks_like_text(block):
            return None
        if looks_like_console(tail + block):
            return "console"
        tail = block[-4096:]
        read += len(block)
        if read > SNIFF_CONSOLE:
            return None
    return None


def _looks_like_text(data: bytes) -> bool:
    """No control characters that no terminal gets; NUL bytes are allowed in small number: a crash leaves holes of them."""
    start = data[:4096]
    control = sum(start.count(c) for c in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x0e", b"\x0f"))
    return control == 0 and start.count(b"\0") <= 0.3 * len(start)


def _detect_json(path: str, stripped: bytes) -> str | None:
    """JSON lines if the first line is an object by itself with a metric in it, a history if it has lists of metrics."""
    lines = [line for line in stripped.replace(b"\r", b"\n").split(b"\n") if line.strip()]
    record = parse_line(lines[0]) if lines[0][:1] == b"{" else None
    if record is not None and not any(isinstance(value, list) or _is_column(value) for value in record.values()):
        names = [name for name, value in flatten(record) if as_number(value) is not None]
        several = len(lines) > 1 and lines[1][:1] == b"{"
        metric, axis = any(map(looks_like_metric, names)), any(map(is_axis, names))
        if (several and (metric or (axis and len(names) > 1))) or (metric and axis):
            return "jsonl"
    for seen, (where, _) in enumerate(leaves(path, [])):
        place = list_place(where)
        if place is not None and looks_like_metric(place[0]):
            return "history-json"
        if where and isinstance(where[0], int) and any(isinstance(p, str) and looks_like_metric(p) for p in where[1:]):
            return "history-json"
        if where[:1] == ("columns",) or where[:1] == ("log_history",):
            return "history-json"
        if seen > 10_000:
            break
    return None


def _is_column(value: object) -> bool:
    """A column as pandas' `to_json` writes it: `{"0": 2.5, "1": null}`."""
    return isinstance(value, dict) and bool(value) and all(key.isdigit() for key in value)


def _lenient(path: str) -> str:
    """A reader for a file that somebody named a log though it does not look like one.

    Raises:
        LogError: nothing that could be read as text with numbers.
    """
    if is_dir(path):
        raise LogError(f"expected TensorBoard event files or an MLflow run, found neither in {path}")
    data = head(path, SNIFF)
    if not data.strip():
        raise LogError(f"expected a training log, found an empty file: {path}")
    if not _looks_like_text(data):
        raise LogError(
            f"expected a training log (CSV, JSON, JSONL, TensorBoard, console output, MLflow or W&B), found another binary file: {path}"
        )
    first = data.lstrip()[:1]
    if first == b"{":
        return "jsonl" if parse_line(data.lstrip().split(b"\n")[0]) is not None else "history-json"
    if first == b"[":
        return "history-json"
    lines = [line for line in data.split(b"\n") if line.strip()]
    is_table = len(lines) > 1 and any(d in lines[0] and d in lines[1] for d in (b",", b";", b"\t"))
    return "csv" if is_table else "console"
