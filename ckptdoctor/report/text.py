"""The report for a terminal: the verdict first, short enough for one screen, no wider than asked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from ckptdoctor.model import Cause, Missing, RankedCause, Report, Severity, Status
from ckptdoctor.report import numbers, story
from ckptdoctor.report.escape import block, line
from ckptdoctor.report.recording import recorded

DEFAULT_WIDTH = 80
MIN_WIDTH = 40
_LABEL = 10  # columns for `Where`, `When`, …
_MOST = 5  # entries of a list; the other formats have them all

_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_STATUS_STYLE = {Status.SICK: "red", Status.HEALTHY: "green", Status.UNREADABLE: "yellow"}
_SEVERITY_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render_text(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """The report as terminal text.

    Args:
        report: what to show.
        width: columns; lines are never longer, except that nothing below 40 is obeyed. None for 80.
        color: use ANSI colours (SGR codes only).
    """
    page = _Page(max(width or DEFAULT_WIDTH, MIN_WIDTH), color)
    _verdict(report, page)
    _what_to_do(report, page)
    _where_and_when(report, page)
    _replay(report, page)
    _why(report, page)
    _findings(report, page)
    _not_checked(report, page)
    return page.text()


def render_summary(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """The verdict, where and when, and what to do: what `inspect` prints beside writing a page."""
    page = _Page(max(width or DEFAULT_WIDTH, MIN_WIDTH), color)
    _verdict(report, page)
    _what_to_do(report, page)
    _where_and_when(report, page)
    return page.text()


class _Page:
    """Collects wrapped lines."""

    def __init__(self, width: int, color: bool) -> None:
        self.width = width
        self.color = color
        self.lines: list[str] = []

    def style(self, text: str, *styles: str) -> str:
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(_SGR[s] for s in styles)}m{text}\x1b[0m"

    def put(self, text: str, *styles: str, first: str = "", rest: str | None = None) -> None:
        """Wrapped text; `first` and `rest` stand before the first and the other lines."""
        rest = " " * cells(first) if rest is None else rest
        for n, row in enumerate(wrap(line(text), self.width - cells(first))):
            self.lines.append((first if n == 0 else rest) + self.style(row, *styles))

    def field(self, label: str, text: str, *styles: str) -> None:
        """`Where     dense/kernel`, wrapped under itself."""
        if text:
            self.put(text, *styles, first=label.ljust(_LABEL))

    def code(self, text: str) -> None:
        """Lines to copy: never wrapped by words, broken only where the terminal would."""
        for row in block(text).expandtabs(4).split("\n"):
            for piece in chop(row, self.width - 4) or [""]:
                self.lines.append("    " + self.style(piece, "cyan"))

    def head(self, text: str) -> None:
        self.gap()
        self.lines.append(self.style(text, "bold"))

    def gap(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def text(self) -> str:
        return "\n".join(self.lines).rstrip() + "\n"


# --- measuring and wrapping ------------------------------------------------------------------------------------


def cells(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cell(c) for c in text)


def _cell(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def chop(text: str, width: int) -> list[str]:
    """A text cut into pieces of at most `width` columns."""
    pieces: list[str] = []
    piece, used = "", 0
    for char in text:
        if used + _cell(char) > width:
            pieces.append(piece)
            piece, used = "", 0
        piece += char
        used += _cell(char)
    return [*pieces, piece] if piece else pieces


def wrap(text: str, width: int) -> list[str]:
    """Words on lines of at most `width` columns; longer words are cut."""
    rows: list[str] = []
    row = ""
    for word in text.split():
        candidate = f"{row} {word}" if row else word
        if cells(candidate) <= width:
            row = candidate
            continue
        if row:
            rows.append(row)
        *full, row = chop(word, width)
        rows += full
    return [*rows, row] if row else rows or [""]


# --- sections ------------------------------------------------------------------------------------------------------


def _verdict(report: Report, page: _Page) -> None:
    verdict = report.verdict
    tone = _STATUS_STYLE[verdict.status]
    words = verdict.status.value.upper()
    if verdict.status is Status.SICK:
        named = verdict.cause is not Cause.UNKNOWN
        words += f": {story.cause_title(verdict.cause)} ({verdict.cause.value})" if named else ": cause unknown"
    page.put(words, "bold", tone)
    page.put(verdict.headline)
    if verdict.status is Status.SICK:
        grade = f"{verdict.grade.value}: {story.GRADE_WORDS[verdict.grade]}"
        page.put(f"{grade}; {story.chances(verdict.confidence)}.", "dim")


def _what_to_do(report: Report, page: _Page) -> None:
    page.gap()
    page.field("Do now", report.verdict.next_step)
    fix = story.fix(report)
    if fix is not None and report.verdict.status is Status.SICK:
        page.field("Fix", story.fix_words(report))
        if fix.code:
            page.code(fix.code)
        page.field("Tested", "by replay: the failure is gone" if fix.tested else "no")
        page.field("Watch", fix.watch)
    resume = story.resume(report)
    if resume is not None:
        page.field("Resume", f"from {resume.path}: {resume.reason}" if resume.path else resume.reason)


def _where_and_when(report: Report, page: _Page) -> None:
    origin = report.diagnosis.origin
    page.gap()
    page.field("Where", story.where(origin))
    page.field("When", story.when(origin))
    if story.where(origin) or story.when(origin):
        page.field("Known by", origin.how, "dim")
    page.field("Recorded", recorded(report))


def _replay(report: Report, page: _Page) -> None:
    replay = report.evidence.replay
    if isinstance(replay, Missing):
        return
    page.head("What replay showed")
    page.put(story.replay_sentence(report), first="  ")
    chain = replay.first_bad.chain if replay.first_bad else ()
    for link in chain[:_MOST]:
        place = f"{link.layer}: {link.what}" if link.layer else link.what
        page.put(f"{place}: {link.nonfinite:,} of {link.size:,} non-finite", first="  > ")
    page_more(page, len(chain) - _MOST, "station")
    for experiment in replay.experiments[:_MOST]:
        outcome = story.outcome(experiment)
        style = {"good": "green", "bad": "red", "partial": "yellow", "open": "dim"}[outcome.tone]
        page.put(f"{experiment.change}: {outcome.word}", style, first=f"  {outcome.sign} ")
    page_more(page, len(replay.experiments) - _MOST, "experiment")


def page_more(page: _Page, more: int, noun: str) -> None:
    """How many entries were left out."""
    if more > 0:
        page.put(f"and {numbers.count(more, f'more {noun}')}", "dim", first="  ")


def _why(report: Report, page: _Page) -> None:
    causes = report.diagnosis.causes
    best = story.winner(report)
    if best is None or report.verdict.status is not Status.SICK:
        return
    page.head("Why this cause")
    for row in _sum(best):
        page.put(row[1], first=f"  {row[0]} ")
    others = [c for c in causes if c is not best][:3]
    if others:
        named = ", ".join(f"{c.cause.value} {numbers.percent(c.confidence)}" for c in others)
        page.put(f"Next: {named}", "dim", first="  ")


def _sum(cause: RankedCause) -> Iterator[tuple[str, str]]:
    heaviest = sorted(cause.contributions, key=lambda c: -abs(c.weight))[:_MOST]
    for term in heaviest:
        source = f" ({term.finding_id})" if term.finding_id else ""
        yield f"{term.weight:+5.1f}", f"{term.reason}{source}"
    yield f"{cause.log_odds:+5.1f}", f"log-odds in all: {numbers.percent(cause.confidence)}"


def _findings(report: Report, page: _Page) -> None:
    if not report.findings:
        return
    ranked = story.by_severity(report.findings)
    page.head(f"Findings ({len(ranked):,})")
    for finding in ranked[:_MOST]:
        word = story.SEVERITY_WORDS[finding.severity]
        label = page.style(word.ljust(8), _SEVERITY_STYLE[finding.severity])
        rows = wrap(line(f"{finding.id or finding.rule} {finding.message}"), page.width - 10)
        page.lines += [f"  {label if n == 0 else ' ' * 8}{row}" for n, row in enumerate(rows)]
    page_more(page, len(ranked) - _MOST, "finding")


def _not_checked(report: Report, page: _Page) -> None:
    gaps = story.not_checked(report)
    known = {error for _, error in report.evidence.unreadable}  # those stand below with their paths
    rows = _gap_rows((f"{gap.title}: {gap.reason.rstrip('.')}." for gap in gaps if gap.reason not in known), report)
    if rows:
        page.head("Not checked")
        for row in rows:
            page.put(row, "dim", first="  ")


def _gap_rows(gaps: Iterable[str], report: Report) -> list[str]:
    rows = list(gaps)
    rows += [f"Rule {failure.rule} crashed: {failure.error}" for failure in report.failures[:_MOST]]
    rows += [f"{path}: {error}" for path, error in report.evidence.unreadable[:_MOST]]
    return rows
