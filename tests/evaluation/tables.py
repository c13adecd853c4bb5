"""What is printed and what goes into the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.evaluation.scoring import (
    UNSEEN,
    CaseScore,
    Share,
    Totals,
    by_cause,
    confusions,
    reliability,
    replay_totals,
    totals,
)

Rows = Sequence[Sequence[str]]


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table; the first column is text, the others are aligned right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def text_table(head: Sequence[str], rows: Rows) -> str:
    """The same for a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def case_line(score: CaseScore) -> str:
    """One line a case."""
    named = score.cause if score.status == "sick" else score.status
    marks = {
        "layer": score.layer_right,
        "fix": score.fix_found,
    }
    extras = "".join(f"  {name} {'yes' if value else 'NO'}" for name, value in marks.items() if value is not None)
    problem = f"  {score.error}" if score.error else ""
    return f"{'ok ' if score.right else 'BAD'} {score.name:32.32} {score.category:20} -> {named:20} {score.confidence:4.2f} {score.grade:9} {score.seconds:5.1f} s{extras}{problem}"


def _share(value: Share) -> str:
    return "–" if not value.of else str(value)


def overall_rows(figures: Totals) -> Rows:
    """Figure by figure."""
    ece = figures.calibration_error
    return [
        ["right cause at rank 1 (faulty runs; accepted alternatives count)", _share(figures.cause)],
        ["exactly the truth's cause", _share(figures.exact)],
        ["right layer (where the truth names one)", _share(figures.layer)],
        ["fix found by experiment (all verified fixes)", _share(figures.fix)],
        ["fix found by experiment (runs that were replayed)", _share(figures.fix_replayed)],
        ["status right (sick or healthy)", _share(figures.status)],
        ["healthy runs called sick", _share(figures.false_alarms)],
        ["healthy runs on which replay saw a failure", _share(figures.reproduced_on_healthy)],
        ["last healthy checkpoint right", _share(figures.last_healthy)],
        ["first bad checkpoint right", _share(figures.first_bad)],
        ["verdict unknown", _share(figures.unknown)],
        ["no report", str(figures.errors)],
        ["expected calibration error (10 bins)", "–" if ece is None else f"{ece:.3f}"],
        ["seconds a run", f"{figures.seconds:.1f}"],
    ]


CAUSE_HEAD = ("cause", "runs", "cause right", "layer right", "fix found", "called sick")


def cause_rows(scores: Sequence[CaseScore]) -> Rows:
    """Cause by cause."""
    rows = []
    for name, figures in by_cause(scores).items():
        members = [s for s in scores if s.category == name]
        sick = sum(s.status == "sick" for s in members)
        rows.append(
            [
                name,
                str(len(members)),
                _share(figures.cause),
                _share(figures.layer),
                _share(figures.fix),
                f"{sick}/{len(members)}",
            ]
        )
    return rows


REPLAY_HEAD = (
    "cause",
    "replayed",
    "failure repeated",
    "phase right",
    "layer right",
    "fix found",
    "a run with place and fix right",
)


def replay_rows(scores: Sequence[CaseScore]) -> Rows:
    """What replay came to, cause by cause; empty where nothing was to be replayed."""
    rows = []
    for name in by_cause(scores):
        members = [s for s in scores if s.category == name and s.replayed is not None]
        if members:
            t = replay_totals(members)
            shares = [_share(one) for one in (t.replayed, t.repeated, t.phase, t.layer, t.fix)]
            rows.append([name, *shares, _example(members)])
    return rows


def _example(scores: Sequence[CaseScore]) -> str:
    """A run whose phase, layer (where the truth names one) and fix are right; one with a layer before others."""
    good = [s for s in scores if s.phase_right and s.fix_found and s.layer_right is not False and s.half != UNSEEN]
    return f"`{min(good, key=lambda s: (s.layer_right is None, s.name)).name}`" if good else "–"


RELIABILITY_HEAD = ("confidence", "verdicts", "mean confidence", "right")


def reliability_rows(scores: Sequence[CaseScore]) -> Rows:
    """The reliability table."""
    return [
        [f"{b.low:.1f} to {b.high:.1f}", str(b.count), f"{b.confidence:.2f}", f"{b.accuracy:.2f}"]
        for b in reliability(scores)
    ]


MATRIX_HEAD = (
    "evidence",
    "cause right",
    "layer right",
    "fix found",
    "false alarms",
    "unknown",
    "calibration error",
    "s a run",
)


def matrix_rows(results: Mapping[str, Sequence[CaseScore]]) -> Rows:
    """Setting by setting."""
    rows = []
    for name, scores in results.items():
        t = totals(scores)
        ece = "–" if t.calibration_error is None else f"{t.calibration_error:.3f}"
        rows.append(
            [
                name,
                _share(t.cause),
                _share(t.layer),
                _share(t.fix),
                _share(t.false_alarms),
                _share(t.unknown),
                ece,
                f"{t.seconds:.1f}",
            ]
        )
    return rows


def confusion_rows(scores: Sequence[CaseScore]) -> Rows:
    """What was taken for what."""
    return [
        [f"{truth} taken for {named}", str(len(names)), ", ".join(f"`{n}`" for n in names)]
        for (truth, named), names in confusions(scores).items()
    ]


def text_report(scores: Sequence[CaseScore]) -> str:
    """Everything about one setting, for a terminal."""
    parts = [
        text_table(("figure", ""), overall_rows(totals(scores))),
        text_table(CAUSE_HEAD, cause_rows(scores)),
        text_table(RELIABILITY_HEAD, reliability_rows(scores)),
    ]
    if replay_rows(scores):
        parts.insert(2, text_table(REPLAY_HEAD, replay_rows(scores)))
    wrong = confusion_rows(scores)
    if wrong:
        parts.append(text_table(("wrong", "runs", "which"), wrong))
    return "\n\n".join(parts)


def markdown_report(title: str, results: Mapping[str, Sequence[CaseScore]]) -> str:
    """One set of cases for the documentation: the first setting in full, the others as rows of a matrix."""
    first = next(iter(results.values()))
    faulty = sum(s.false_alarm is None for s in first)
    parts = [
        f"## {title}",
        f"{len(first)} runs: {faulty} faulty, {len(first) - faulty} healthy.",
        markdown_table(("figure", "value"), overall_rows(totals(first))),
    ]
    if len(results) > 1:
        parts += ["Which evidence buys what:", markdown_table(MATRIX_HEAD, matrix_rows(results))]
    parts += [
        "By cause:",
        markdown_table(CAUSE_HEAD, cause_rows(first)),
        *_replay_part(first),
        "Reliability of the stated confidence:",
        markdown_table(RELIABILITY_HEAD, reliability_rows(first)),
    ]
    wrong = confusion_rows(first)
    parts += (
        ["Wrong verdicts:", markdown_table(("truth and verdict", "runs", "which"), wrong)]
        if wrong
        else ["No wrong verdict."]
    )
    return "\n\n".join(parts) + "\n"


def replay_report(title: str, scores: Sequence[CaseScore]) -> str:
    """What replay came to, alone."""
    asked = [s for s in scores if s.replayed is not None]
    return f"## {title}\n\n{len(asked)} faulty runs.\n\n{markdown_table(REPLAY_HEAD, replay_rows(scores))}\n"


def _replay_part(scores: Sequence[CaseScore]) -> list[str]:
    rows = replay_rows(scores)
    return ["What replay came to:", markdown_table(REPLAY_HEAD, rows)] if rows else []


def with_section(page: str, name: str, section: str) -> str:
    """A page with the text between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced; appended where there is none."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        return f"{before}{begin}\n{section}{end}{rest.split(end, 1)[1]}"
    gap = "\n" if page and not page.endswith("\n\n") else ""
    return f"{page}{gap}{begin}\n{section}{end}\n"
