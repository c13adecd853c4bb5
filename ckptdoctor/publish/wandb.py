"""Weights & Biases: the page as a panel and an artifact of a run, the verdict in its summary. Works offline."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ckptdoctor.model import Report
from ckptdoctor.publish import FILES, PublishError, reason, tags
from ckptdoctor.report import render
from ckptdoctor.report.escape import file_name, line
from ckptdoctor.report.story import subject_name


def to_wandb(report: Report, run: str) -> str:
    """Log the report to a run; returns where it is.

    Args:
        report: what to log.
        run: `RUN`, `PROJECT/RUN` or `ENTITY/PROJECT/RUN` of an existing run, which is resumed. Empty: a new run in the
            project of WANDB_PROJECT, else `ckptdoctor`. With WANDB_MODE=offline it is kept in WANDB_DIR for
            `wandb sync`.

    Raises:
        PublishError: not logged in, no such run, or the server does not answer.
    """
    import wandb

    entity, project, run_id = _parts(run)
    try:
        with tempfile.TemporaryDirectory(prefix="ckptdoctor-") as folder:
            logged = wandb.init(
                entity=entity,
                project=project or os.environ.get("WANDB_PROJECT") or "ckptdoctor",
                id=run_id,
                resume="must" if run_id and os.environ.get("WANDB_MODE") != "offline" else None,
                name=None if run_id else f"ckptdoctor {line(subject_name(report))}"[:120],
                job_type=None if run_id else "post-mortem",
                settings=wandb.Settings(
                    console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True
                ),
            )
            failed = True
            try:
                _log(logged, report, Path(folder))
                failed = False
            finally:
                logged.finish(exit_code=int(failed))
    except Exception as error:
        raise PublishError(
            f"the report was not taken by W&B: {line(reason(error))}; log in with `wandb login`, or set WANDB_MODE=offline"
        ) from error
    place = logged.settings.sync_dir if logged.offline else logged.url
    return f"W&B run {logged.id}, {place}"


def _parts(run: str) -> tuple[str | None, str | None, str | None]:
    parts = [part for part in run.split("/") if part]
    if len(parts) > 3:
        raise PublishError(f"expected RUN, PROJECT/RUN or ENTITY/PROJECT/RUN after --publish wandb=, found '{run}'")
    run_id, project, entity = (*reversed(parts), None, None, None)[:3]
    return entity, project, run_id


def _log(run: Any, report: Report, folder: Path) -> None:
    import wandb

    artifact = wandb.Artifact(file_name(f"ckptdoctor-{subject_name(report)}")[:100], type="ckptdoctor-report")
    for name, format_ in FILES.items():
        path = folder / name
        path.write_text(render(report, format_), encoding="utf-8")
        artifact.add_file(str(path), name=name, policy="mutable")
    run.log_artifact(artifact)
    run.log({"ckptdoctor": wandb.Html((folder / "report.html").read_text(encoding="utf-8"), inject=False)})
    for key, value in tags(report).items():
        run.summary[key] = line(value)
