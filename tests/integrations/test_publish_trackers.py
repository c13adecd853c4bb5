"""`--publish mlflow` and `--publish wandb`, against real local stores."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from integration_runs import HEALTHY, SICK, ckptdoctor

from ckptdoctor.logs.series import LogBuilder
from ckptdoctor.logs.wandb import _records
from ckptdoctor.publish import Destination, PublishError, parse

FILES = ["report.html", "report.json", "report.md"]


def rows(store: Path, question: str) -> list[tuple]:
    connection = sqlite3.connect(store)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def published(done, tracker: str) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"Published: {tracker} ")]
    return line.removeprefix(f"Published: {tracker} run ").split(",")[0]


def test_mlflow_gets_the_files_and_the_verdict_as_tags(tmp_path):
    """One store for all of it: making its tables takes longer than the rest."""
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    arguments = ("inspect", SICK, "--no-replay", "--publish", "mlflow")
    done = ckptdoctor(*arguments, cwd=tmp_path, **store)
    assert done.returncode == 1, done.stderr
    run = published(done, "MLflow")
    (folder,) = tmp_path.glob(f"mlruns/*/{run}/artifacts/ckptdoctor")
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert json.loads((folder / "report.json").read_text())["verdict"]["cause"] == "data_nonfinite"
    tags = dict(rows(tmp_path / "mlflow.db", f"select key, value from tags where run_uuid = '{run}'"))
    assert tags["ckptdoctor.cause"] == "data_nonfinite"
    assert tags["ckptdoctor.layer"] == "hidden"
    status, name = rows(tmp_path / "mlflow.db", f"select status, name from runs where run_uuid = '{run}'")[0]
    assert (status, name) == ("FINISHED", "ckptdoctor nan_feature")

    again = ckptdoctor("inspect", HEALTHY, "--no-replay", "--publish", f"mlflow={run}", cwd=tmp_path, **store)
    assert (again.returncode, published(again, "MLflow")) == (0, run)
    assert (
        "healthy"
        in rows(
            tmp_path / "mlflow.db", f"select value from tags where run_uuid = '{run}' and key = 'ckptdoctor.status'"
        )[0]
    )

    absent = "0123456789abcdef0123456789abcdef"
    done = ckptdoctor(*arguments[:-1], f"mlflow={absent}", "-o", "kept.html", cwd=tmp_path, **store)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: the report was not taken by the MLflow store 'sqlite:///mlflow.db'")
    assert absent in last
    assert (tmp_path / "kept.html").exists()


def test_wandb_offline_keeps_the_page_the_artifact_and_the_verdict(tmp_path):
    from wandb.proto import wandb_internal_pb2

    done = ckptdoctor(
        "inspect",
        SICK,
        "--no-replay",
        "--publish",
        "wandb",
        cwd=tmp_path,
        WANDB_MODE="offline",
        WANDB_DIR=tmp_path,
        WANDB_DATA_DIR=tmp_path / "data",
        WANDB_CACHE_DIR=tmp_path / "cache",
        WANDB_CONFIG_DIR=tmp_path / "config",
    )
    assert done.returncode == 1, done.stderr
    run = published(done, "W&B")
    (folder,) = tmp_path.glob(f"wandb/offline-run-*-{run}")
    (page,) = folder.glob("files/media/html/*.html")
    assert "data_nonfinite" in page.read_text(encoding="utf-8")

    artifacts, summary = [], {}
    name = str(folder / f"run-{run}.wandb")
    for data in _records(name, LogBuilder(name, "wandb")):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "request" and record.request.HasField("log_artifact"):
            artifacts.append(record.request.log_artifact.artifact)
        if record.HasField("artifact"):
            artifacts.append(record.artifact)
        for update in record.summary.update if record.HasField("summary") else ():
            summary[update.key or "/".join(update.nested_key)] = update.value_json
    (artifact,) = artifacts
    assert (artifact.name, artifact.type) == ("ckptdoctor-nan_feature", "ckptdoctor-report")
    assert sorted(entry.path for entry in artifact.manifest.contents) == FILES
    assert json.loads(summary["ckptdoctor.cause"]) == "data_nonfinite"


def test_wandb_without_an_account_says_what_to_do(tmp_path):
    done = ckptdoctor(
        "inspect",
        SICK,
        "--no-replay",
        "--publish",
        "wandb",
        cwd=tmp_path,
        HOME=tmp_path,
        NETRC=tmp_path / "none",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_DIR=tmp_path,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: the report was not taken by W&B: ")
    assert "WANDB_MODE=offline" in last
    assert (tmp_path / "nan_feature.ckptdoctor.html").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlflow", Destination("mlflow")),
        ("MLflow=abc", Destination("mlflow", "abc")),
        ("wandb=me/project/run", Destination("wandb", "me/project/run")),
        ("tensorboard=logs/a=b", Destination("tensorboard", "logs/a=b")),
    ],
)
def test_a_destination_is_a_tracker_and_a_place(text, expected):
    assert parse(text) == expected


def test_an_unknown_tracker_is_refused_before_anything_is_read(tmp_path):
    done = ckptdoctor("inspect", tmp_path / "absent", "--publish", "comet", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected one of mlflow, wandb, tensorboard" in done.stderr


def test_a_tracker_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(PublishError, match=r"pip install 'ckptdoctor\[wandb\]'"):
        parse("wandb")


def test_a_path_with_too_many_parts_is_refused():
    from ckptdoctor.publish.wandb import _parts

    assert _parts("run") == (None, None, "run")
    assert _parts("entity/project/run") == ("entity", "project", "run")
    with pytest.raises(PublishError, match="expected RUN"):
        _parts("a/b/c/d")


def test_nothing_of_a_tracker_is_imported_unless_it_is_asked_for(tmp_path):
    code = "import sys, ckptdoctor.publish, ckptdoctor.cli.inspect; print([m for m in ('mlflow', 'wandb') if m in sys.modules])"
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ
    )
    assert done.stdout == "[]\n"
