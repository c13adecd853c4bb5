"""The library's front door: everything the command line does, as functions. Nothing here prints."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ckptdoctor import __version__
from ckptdoctor.model import CkptDoctorError, Report
from ckptdoctor.options import InspectOptions, Progress

__all__ = ["InspectOptions", "Inspection", "Progress", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection(Report):
    """The report of one `inspect`, with what a notebook or a script wants of it."""

    def save_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the page, whole or not at all; returns its path.

        Args:
            path: the file; `<name>.ckptdoctor.html` in the working directory where none is given.

        Raises:
            CkptDoctorError: it cannot be written there.
        """
        from ckptdoctor.report.writing import save_html

        return str(save_html(self, path))

    def to_json(self) -> str:
        """The JSON document, strict: non-finite numbers are strings."""
        return self._rendered("json")

    def to_markdown(self) -> str:
        """The report for an issue tracker, below 60,000 characters."""
        return self._rendered("markdown")

    def __str__(self) -> str:
        return self._rendered("text")

    def _repr_markdown_(self) -> str:
        from ckptdoctor.report.notebook import repr_markdown

        return repr_markdown(self)

    def _repr_html_(self) -> str:
        from ckptdoctor.report.notebook import repr_html

        return repr_html(self)

    def _rendered(self, format_: str) -> str:
        from ckptdoctor.report import render

        return render(self, format_)


def _silent(_message: str) -> None:
    return None


def inspect(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: InspectOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Inspection:
    """Perform the post-mortem on a checkpoint or a run directory.

    Args:
        paths: a checkpoint, a run directory, or several checkpoints of one run.
        options: see `InspectOptions`.
        progress: called with a short line when a stage begins.
        changes: single options by name, e.g. `replay=False`; they override `options`.

    Raises:
        CkptDoctorError: nothing could be read, or an option does not fit; the text is for the user.
    """
    from ckptdoctor.checkpoints.limits import use_limits
    from ckptdoctor.diagnosis import conclude
    from ckptdoctor.discover import discover
    from ckptdoctor.evidence.gather import gather
    from ckptdoctor.rules.registry import check_words, run_rules

    options = _with(options or InspectOptions(), changes)
    progress = progress or _silent
    started = time.perf_counter()
    check_words(select=options.select, ignore=options.ignore, overrides=options.thresholds)
    names = [os.fspath(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    with use_limits(options.limits):
        files = discover(names, logs=options.log, batches=options.batches)
        evidence = gather(files, options, progress)
    progress("weighing the evidence")
    outcome = run_rules(evidence, select=options.select, ignore=options.ignore, overrides=options.thresholds)
    diagnosis = conclude(outcome, evidence)
    return Inspection(
        evidence=evidence,
        findings=outcome.findings,
        skipped=outcome.skipped,
        failures=outcome.failures,
        diagnosis=diagnosis,
        tool_version=__version__,
        seconds=time.perf_counter() - started,
        options={"device": options.device, "steps": options.steps, "budget": options.budget, "trust": options.trust},
    )


def _with(options: InspectOptions, changes: Mapping[str, Any]) -> InspectOptions:
    known = {f.name for f in fields(InspectOptions)}
    if unknown := sorted(set(changes) - known):
        raise CkptDoctorError(f"inspect has no option '{unknown[0]}'; it has {', '.join(sorted(known))}")
    return replace(options, **changes)
