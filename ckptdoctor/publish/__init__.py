"""A finished report into the place where a team keeps its runs: MLflow, Weights & Biases, TensorBoard.

Each tracker is a module of its own and imported only when it is asked for. TensorBoard needs no library at all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptdoctor.model import CkptDoctorError, Report, Status

TRACKERS = ("mlflow", "wandb", "tensorboard")
_NEEDS = {"mlflow": "mlflow", "wandb": "wandb"}  # tracker → package; the extra has the package's name


class PublishError(CkptDoctorError):
    """A report that could not be put where it was asked for. The report itself was made all the same."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to put a report.

    Attributes:
        tracker: one of `TRACKERS`.
        where: a run of MLflow or W&B, a log directory of TensorBoard; empty for the tracker's own default.
    """

    tracker: str
    where: str = ""


def parse(text: str) -> Destination:
    """`mlflow`, `wandb=entity/project/run`, `tensorboard=logs/` as a destination that can be reached from here.

    Raises:
        PublishError: an unknown tracker, or its package is not installed.
    """
    tracker, _, where = text.partition("=")
    tracker = tracker.strip().lower()
    if tracker not in TRACKERS:
        raise PublishError(f"expected one of {', '.join(TRACKERS)}, as in --publish mlflow=RUN, found '{text}'")
    package = _NEEDS.get(tracker)
    if package is not None and importlib.util.find_spec(package) is None:
        raise PublishError(
            f"--publish {tracker} needs the package {package}; install it with: pip install 'ckptdoctor[{package}]'"
        )
    return Destination(tracker, where.strip())


def publish(report: Report, destinations: Sequence[Destination | str]) -> tuple[str, ...]:
    """Put a report into each place.

    Returns:
        For each of them a sentence that says where it is now.

    Raises:
        PublishError: a place that does not take it; the ones before it have it.
    """
    places = [parse(d) if isinstance(d, str) else d for d in destinations]
    return tuple(_publisher(place.tracker)(report, place.where) for place in places)


def _publisher(tracker: str) -> Callable[[Report, str], str]:
    if tracker == "mlflow":
        from ckptdoctor.publish.mlflow import to_mlflow

        return to_mlflow
    if tracker == "wandb":
        from ckptdoctor.publish.wandb import to_wandb

        return to_wandb
    from ckptdoctor.publish.tensorboard import to_tensorboard

    return to_tensorboard


FILES = {"report.html": "html", "report.md": "markdown", "report.json": "json"}
"""What a tracker with files is given: name → format."""


def tags(report: Report) -> dict[str, str]:
    """The verdict as a few words to filter runs by."""
    verdict = report.verdict
    words = {"ckptdoctor.status": verdict.status.value}
    if verdict.status is Status.SICK:
        words |= {
            "ckptdoctor.cause": verdict.cause.value,
            "ckptdoctor.grade": verdict.grade.value,
            "ckptdoctor.confidence": f"{verdict.confidence:.2f}",
        }
        if report.diagnosis.origin.layer is not None:
            words["ckptdoctor.layer"] = report.diagnosis.origin.layer
    return words


def reason(error: BaseException) -> str:
    """The first line of a library's error, for one sentence of ours."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.strip()[:300]}" if first else type(error).__name__
