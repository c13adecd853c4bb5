"""MLflow: the report as artifacts of a run, the verdict as its tags."""

from __future__ import annotations

import os

from ckptdoctor.model import Report
from ckptdoctor.publish import FILES, PublishError, reason, tags
from ckptdoctor.report import render
from ckptdoctor.report.escape import line
from ckptdoctor.report.story import subject_name

FOLDER = "ckptdoctor"
_LONGEST_TAG = 500  # characters; stores of MLflow before 2.0 take no more


def to_mlflow(report: Report, run: str) -> str:
    """Log the report to a run; returns where it is.

    Args:
        report: what to log.
        run: id of an existing run. Empty: the one of MLFLOW_RUN_ID, else a new run in the experiment of
            MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, else in the default one. The store is the one of
            MLFLOW_TRACKING_URI.

    Raises:
        PublishError: no such run, or the store does not answer.
    """
    import mlflow
    from mlflow.entities import RunStatus
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient()
        wanted = run or os.environ.get("MLFLOW_RUN_ID", "")
        made = "" if wanted else _new_run(client, report)
        run_id = wanted or made
        client.get_run(run_id)
        for name, format_ in FILES.items():
            client.log_text(run_id, render(report, format_), f"{FOLDER}/{name}")
        for key, value in tags(report).items():
            client.set_tag(run_id, key, line(value)[:_LONGEST_TAG])
        if made:
            client.set_terminated(made, RunStatus.to_string(RunStatus.FINISHED))
    except Exception as error:
        store = mlflow.get_tracking_uri()
        raise PublishError(
            f"the report was not taken by the MLflow store '{line(store)}': {line(reason(error))}; "
            "check MLFLOW_TRACKING_URI and the run's id"
        ) from error
    return f"MLflow run {run_id}, artifacts {FOLDER}/"


def _new_run(client: object, report: Report) -> str:
    """A run named after what was inspected, in the experiment of the environment."""
    from mlflow.tracking import MlflowClient

    assert isinstance(client, MlflowClient)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    if not experiment and name:
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known is not None else client.create_experiment(name)
    run = client.create_run(experiment or "0", run_name=f"ckptdoctor {line(subject_name(report))}"[:250])
    return str(run.info.run_id)
