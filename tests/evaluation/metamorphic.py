"""Changes that must not change a verdict, and evidence whose absence must not flip one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.evaluation.cases import EvaluationCase
from tests.evaluation.running import Answer, Setting, ask_all
from tests.evaluation.scoring import accepted, removal_flips, renamed_differs
from tests.evaluation.variants import rename_files, rename_layers

REMOVALS = (
    Setting("without its log", without=("log",)),
    Setting("without its batches", replay=False, without=("batches",)),
    Setting("without log and batches", replay=False, without=("log", "batches")),
)


def metamorphic(cases: Sequence[EvaluationCase], *, replay: bool, jobs: int, timeout: float) -> int:
    """Check every case in every way, printing what differs. Returns 1 where something does."""
    original = {a.case.name: a for a in ask_all(cases, Setting(replay=replay), jobs=jobs, timeout=timeout)}
    complaints = 0
    complaints += _renamed(cases, original, Setting(replay=replay), jobs=jobs, timeout=timeout)
    for setting in REMOVALS:
        reduced = Setting(setting.name, replay=replay and setting.replay, without=setting.without)
        for answer in ask_all(cases, reduced, jobs=jobs, timeout=timeout):
            complaints += _report(
                original[answer.case.name], answer, setting.name, _flip(original[answer.case.name], answer)
            )
    print(
        f"{complaints} complaints about {len(cases)} runs, each renamed twice and with evidence taken away {len(REMOVALS)} times"
    )
    return 1 if complaints else 0


def other_rate(
    cases: Sequence[EvaluationCase], others: Sequence[EvaluationCase], *, replay: bool, jobs: int, timeout: float
) -> int:
    """Compare runs with those of the same programs at another learning rate of the same regime.

    A complaint is a verdict of another status or cause, unless the truth accepts both causes; which of two accepted names
    comes first may hang on the numbers. Returns 1 where there are complaints.
    """
    named = {case.name: case for case in others}
    pairs = [(case, named[case.name]) for case in cases if case.name in named]
    before = ask_all([a for a, _ in pairs], Setting(replay=replay), jobs=jobs, timeout=timeout)
    after = {a.case.name: a for a in ask_all([b for _, b in pairs], Setting(replay=replay), jobs=jobs, timeout=timeout)}
    complaints = renames = 0
    for answer in before:
        told = _other_verdict(answer, after[answer.case.name])
        complaints += bool(told) and not told.endswith(BOTH_ACCEPTED)
        renames += told.endswith(BOTH_ACCEPTED)
        if told:
            print(f"{answer.case.name}: another rate: {told}", flush=True)
    print(
        f"{complaints} verdicts of {len(pairs)} changed with the learning rate; {renames} more changed between causes "
        "that are both accepted"
    )
    return 1 if complaints else 0


BOTH_ACCEPTED = "(both accepted)"


def _other_verdict(before: Answer, after: Answer) -> str:
    if before.document is None or after.document is None:
        return f"no report: {before.error or after.error}"
    a, b = before.document["verdict"], after.document["verdict"]
    if (a["status"], a["cause"]) == (b["status"], b["cause"]):
        return ""
    told = f"{a['status']}/{a['cause']} at {a['confidence']:.2f} became {b['status']}/{b['cause']} at {b['confidence']:.2f}"
    return f"{told} {BOTH_ACCEPTED}" if {a["cause"], b["cause"]} <= accepted(before.case.truth) else told


def _renamed(
    cases: Sequence[EvaluationCase], original: dict[str, Answer], setting: Setting, *, jobs: int, timeout: float
) -> int:
    complaints = 0
    for answer in ask_all(cases, setting, jobs=jobs, timeout=timeout, change=lambda run: rename_files(run, 1)):
        before = original[answer.case.name]
        complaints += _report(before, answer, "other file names", _difference(before, answer, {}))
    names: dict[str, str] = {}

    def relabel(run: Path) -> Path:
        names.update(rename_layers(run, 2))
        return run

    for case in cases:
        names.clear()
        for answer in ask_all([case], setting, jobs=1, timeout=timeout, change=relabel):
            if names:
                complaints += _report(
                    original[case.name], answer, "other layer names", _difference(original[case.name], answer, names)
                )
    return complaints


def _difference(before: Answer, after: Answer, layers: dict[str, str]) -> str:
    if before.document is None or after.document is None:
        return "" if before.document is after.document else f"no report: {before.error or after.error}"
    return renamed_differs(before.document, after.document, layers)


def _flip(full: Answer, reduced: Answer) -> str:
    if full.document is None or reduced.document is None:
        return ""
    return removal_flips(full.document, reduced.document, accepted(full.case.truth))


def _report(original: Answer, changed: Answer, how: str, complaint: str) -> int:
    if complaint:
        print(f"{original.case.name}: {how}: {complaint}", flush=True)
    del changed
    return int(bool(complaint))
