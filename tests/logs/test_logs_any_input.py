"""No input makes a reader raise anything but LogError, hang, or grow without bound."""

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ckptdoctor.logs import LogError, detect_log, read_log
from ckptdoctor.logs.console import read_console
from ckptdoctor.logs.csvlog import read_csv
from ckptdoctor.logs.history import read_history
from ckptdoctor.logs.jsonl import read_jsonl
from ckptdoctor.logs.mlflow import read_mlflow_sqlite
from ckptdoctor.logs.tensorboard import read_tensorboard
from ckptdoctor.logs.wandb import read_wandb

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
READERS = [read_console, read_csv, read_history, read_jsonl, read_mlflow_sqlite, read_tensorboard, read_wandb]
STORED = sorted(p for p in LOGS.rglob("*") if p.is_file() and p.suffix != ".yaml" and p.stat().st_size < 20_000)
PIECES = [
    b"epoch,loss\n",
    b"Epoch 1/2\n",
    b"2/2 - 1s - loss: nan",
    b"\r",
    b"\b",
    b"\x1b[1m",
    b'{"loss": [',
    b"NaN",
    b"1e999",
    b",",
    b"\n",
    b'"',
    b"\0",
    b"0,1.0\n",
    b"]}",
    b"Batch 3: Invalid loss, terminating training",
    b":W&B\xee\xe1\x00",
    b"SQLite format 3\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b" - ",
    b"1/Unknown",
    "━∞".encode(),
]

texts = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=60).map(b"".join)
anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=5000, max_examples=200)


def check(log):
    """What every log promises, whatever it was read from."""
    for series in log.series:
        assert series.count >= len(series.steps) > 0
        assert len(series.steps) == len(series.values)
        assert len(series.name) <= 256
        assert series.nonfinite <= series.count
        assert all(step - step == 0 for step in series.steps)
    assert len(log.notes) <= 60
    assert len(log.restarts) <= 1000


@anything
@given(data=texts)
@example(data=b"epoch,loss\n1e999,1\nnan,2\n")
@example(data=b'{"step": 1e999, "loss": 1}\n{"step": NaN, "loss": 2}')
@example(data=b'{"epoch": [1e999, 2], "loss": [1, 2]}')
def test_bytes_of_any_kind(tmp_path, data):
    path = tmp_path / "log"
    path.write_bytes(data)
    detect_log(path)
    for reader in (read_log, *READERS):
        with contextlib.suppress(LogError):
            check(reader(str(path)))


@anything
@given(
    choice=st.sampled_from(STORED),
    at=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    repeat=st.booleans(),
)
def test_real_logs_mutated(tmp_path, choice, at, flips, repeat):
    data = bytearray(choice.read_bytes())
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    data = data[: int(at * len(data))] * (2 if repeat else 1)
    path = tmp_path / choice.name
    path.write_bytes(data)
    detect_log(path)
    with contextlib.suppress(LogError):
        check(read_log(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=5000, max_examples=40)
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=30))
def test_a_damaged_database(tmp_path, flips):
    data = bytearray((LOGS / "mlflow" / "mlflow.db").read_bytes())
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / "mlflow.db"
    path.write_bytes(data)
    with contextlib.suppress(LogError):
        check(read_log(path))


def test_a_database_that_computes_for_ever_is_refused(tmp_path):
    import sqlite3

    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE VIEW metrics AS WITH RECURSIVE t(key, value, run_uuid, step) AS "
            "(SELECT 'loss', 1.0, 'r', 1 UNION ALL SELECT key, value, run_uuid, step + 1 FROM t) SELECT * FROM t"
        )
    assert detect_log(path) is None
    with pytest.raises(LogError, match="without MLflow's table"):
        read_mlflow_sqlite(str(path))


def test_reading_leaves_nothing_behind(tmp_path):
    shutil.copytree(LOGS, tmp_path / "logs")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "logs").rglob("*")}
    for path in list(before):
        with contextlib.suppress(LogError):
            read_log(path)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "logs").rglob("*")}


def test_names_are_bounded(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"loss_{"x" * 1000}{i}": 1.0, "loss{i}": 2.0}}\n' for i in range(5000)))
    log = read_log(path)
    check(log)
    assert len(log.series) <= 2000
    assert any("series" in note for note in log.notes)
