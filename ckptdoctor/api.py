"""The library's front door: everything the command line does, as functions. Nothing here prints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ckptdoctor import __version__
from ckptdoctor.model import Report, Status

Progress = Callable[[str], None]


def _silent(_message: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What `inspect` can be told; the defaults are those of the command line.

    Attributes:
        log, batches: explicit files that override discovery.
        build: `MODULE:FUNCTION` returning the model, for weights-only files.
        custom_objects: module with the run's own classes and functions. It is imported, hence trusted.
        device: `auto`, `cpu`, `gpu`, `gpu:N`.
        replay: True, False, or None for "where batches were recorded and TensorFlow is installed".
        trust: replay configurations that would run code of their own. unsafe_lambda: Lambda layers too.
        steps: most training steps to replay. budget: seconds for experiments.
        select, ignore: rule codes (or prefixes) and names. thresholds: `CODE.name` to number.
        threads: for the census; None chooses.
    """

    log: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    build: str | None = None
    custom_objects: str | None = None
    device: str = "auto"
    replay: bool | None = None
    trust: bool = False
    unsafe_lambda: bool = False
    steps: int = 400
    budget: float = 25.0
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None


def inspect(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: InspectOptions | None = None,
    progress: Progress | None = None,
) -> Report:
    """Perform the post-mortem on a checkpoint or a run directory.

    Args:
        paths: a checkpoint, a run directory, or several checkpoints of one run.
        options: see `InspectOptions`.
        progress: called with a short line when a stage begins.

    Raises:
        CkptDoctorError: nothing could be read, or an option does not fit; the text is for the user.
    """
    from ckptdoctor.diagnosis import conclude
    from ckptdoctor.discover import discover
    from ckptdoctor.evidence.gather import gather
    from ckptdoctor.rules.registry import check_words, run_rules

    options = options or InspectOptions()
    progress = progress or _silent
    started = time.perf_counter()
    check_words(select=options.select, ignore=options.ignore, overrides=options.thresholds)
    names = [os.fspath(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    files = discover(names, logs=options.log, batches=options.batches)
    evidence = gather(files, options, progress)
    progress("weighing the evidence")
    outcome = run_rules(evidence, select=options.select, ignore=options.ignore, overrides=options.thresholds)
    diagnosis = conclude(outcome, evidence)
    return Report(
        evidence=evidence,
        findings=outcome.findings,
        skipped=outcome.skipped,
        failures=outcome.failures,
        diagnosis=diagnosis,
        tool_version=__version__,
        seconds=time.perf_counter() - started,
        options={"device": options.device, "steps": options.steps, "budget": options.budget, "trust": options.trust},
    )


def is_sick(report: Report) -> bool:
    """Whether the verdict is `sick`."""
    return report.verdict.status is Status.SICK
