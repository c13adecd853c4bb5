"""What the rules on configurations share: one walk over both documents of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Census, Evidence, Finding, JsonObject, Missing, Severity
from ckptdoctor.replay.allowlist import ConfigProblem, compile_problems, config_problems

MOST_REPORTED = 20  # of one kind; a file with more is not understood better by a longer list


def problems_of(evidence: Evidence, *kinds: str) -> list[ConfigProblem]:
    """Problems of these kinds in the model's and the training configuration of the examined checkpoint."""
    if not isinstance(evidence.census, Census):
        return []
    info = evidence.census.info
    return [p for p in _problems(info.model_config, info.compile_config) if p.kind in kinds][:MOST_REPORTED]


_latest: tuple[object, object, tuple[ConfigProblem, ...]] | None = None


def _problems(model: JsonObject | Missing, compiled: JsonObject | Missing) -> tuple[ConfigProblem, ...]:
    """Every problem of both documents; remembered for the next rule, since all of them ask about the same checkpoint."""
    global _latest  # noqa: PLW0603 - one entry, compared by identity
    known = _latest
    if known is not None and known[0] is model and known[1] is compiled:
        return known[2]
    found = () if isinstance(model, Missing) else config_problems(model)
    if not isinstance(compiled, Missing):
        found += compile_problems(compiled)
    _latest = (model, compiled, found)
    return found


def leaves_machine(problem: ConfigProblem) -> bool:
    """Whether the subject is a URL, or a path that climbs or is a device: never a vocabulary of one's own."""
    subject = problem.subject
    return (
        "://" in subject
        or ".." in subject.replace("\\", "/").split("/")
        or subject.startswith(("/etc/", "/proc/", "/dev/", "\\\\"))
    )


def findings(code: str, severity: Severity, problems: list[ConfigProblem], advice: str) -> Iterator[Finding]:
    """One finding a problem, with its address and advisory."""
    for problem in problems:
        advisory = f" ({problem.advisory})" if problem.advisory else ""
        yield Finding(
            rule=code,
            severity=severity,
            message=f"{problem.reason[:1].upper()}{problem.reason[1:]}{advisory}, at {problem.address}. {advice}",
            variable=problem.address,
            measured=problem.subject,
            data={"advisory": problem.advisory, "kind": problem.kind},
        )
