"""Words for what the flight recorder kept, and for how it was repeated."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import FlightRecord, Missing, Repeat, Report
from ckptdoctor.report import numbers

_TINY = 1e-5  # relative; a different order of summation in float32 moves a loss by about 1e-7 a step


def recorded(report: Report) -> str:
    """Why the recording ended; empty for a run that was not recorded."""
    record = report.evidence.recorder
    if isinstance(record, Missing):
        used = report.evidence.files.recorder
        return f"The flight recorder's file was not used: {record.reason.rstrip('.')}." if used else ""
    taken = f"{numbers.count(record.steps_taken, 'step')} taken"
    if record.text:
        text = f"The flight recorder: {record.text.rstrip('.')} ({taken})."
    elif record.status == "running":
        text = f"The flight recorder was cut off after it last wrote ({taken})."
    else:
        text = f"The flight recorder saw training end in order ({taken})."
    return " ".join((text, *(f"It could not keep everything: {p.rstrip('.')}." for p in record.problems[:3])))


def repeated(repeat: Repeat | None) -> str:
    """How the recorded steps were repeated; empty without a recording."""
    if repeat is None:
        return ""
    if repeat.outcome == "not used":
        return f"The recorded steps were not repeated exactly: {repeat.reason.rstrip('.')}."
    one = repeat.first_step == repeat.last_step
    steps = f"step {repeat.first_step} was" if one else f"steps {repeat.first_step} to {repeat.last_step} were"
    ends = {
        "same step": f"step {repeat.failed_step} fails as it did in training",
        "other step": f"step {repeat.failed_step} fails, which it did not in training",
        "finite": "none fails",
    }[repeat.outcome]
    parts = [f"The recorded {steps} repeated: {ends}{_losses(repeat)}."]
    if repeat.variables_agree is False:
        parts.append("Other weights are non-finite after it than were recorded.")
    if repeat.seeds:
        parts.append(
            f"The states of {numbers.count(repeat.seeds, 'random generator')} (dropout and the like) were put back."
        )
    if repeat.not_honoured:
        parts.append(f"Not repeated: {'; '.join(repeat.not_honoured)}.")
    return " ".join(parts)


def _losses(repeat: Repeat) -> str:
    if not repeat.compared or repeat.difference is None:
        return ""
    count = numbers.count(repeat.compared, "finite step")
    if repeat.equal == repeat.compared:
        return f", and the loss of {'each of ' if repeat.compared > 1 else ''}{count} equals the recorded one to the last bit"
    agrees = "agrees with" if repeat.difference <= _TINY else "differs from"
    return f", and the loss of {count} {agrees} the recorded one (largest relative difference {repeat.difference:.1e})"


def training_versions(report: Report) -> Iterator[tuple[str, str]]:
    """Name and version of what the recorded run was trained with."""
    record = report.evidence.recorder
    if isinstance(record, FlightRecord):
        for name, version in record.environment.items():
            yield f"training: {name}", version
