"""`python -m tests.evaluation [CASES…]`: inspect runs whose fault is known, and count how often the verdict is right."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.evaluation.cases import EvaluationCase, find_cases
from tests.evaluation.metamorphic import metamorphic, other_rate
from tests.evaluation.running import MATRIX, Answer, Setting, ask_all
from tests.evaluation.scoring import UNSEEN, CaseScore, score
from tests.evaluation.tables import (
    MATRIX_HEAD,
    case_line,
    markdown_report,
    matrix_rows,
    replay_report,
    text_report,
    text_table,
    with_section,
)

DEFAULT_CASES = Path(__file__).resolve().parents[2] / "fixtures" / "casebook" / "runs"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        type=Path,
        default=[DEFAULT_CASES],
        metavar="CASES",
        help="case folders, or folders of them (default: fixtures/casebook/runs)",
    )
    parser.add_argument("--no-replay", action="store_true", help="without experiments")
    parser.add_argument("--no-log", action="store_true", help="without the training log")
    parser.add_argument(
        "--no-batches", action="store_true", help="without the recorded batches (and so without replay)"
    )
    parser.add_argument(
        "--with-code",
        action="store_true",
        help="with the modules of the case book that define own layers and losses, as a user has them at hand",
    )
    parser.add_argument("--matrix", action="store_true", help="all evidence, and with parts of it taken away")
    parser.add_argument(
        "--metamorphic",
        action="store_true",
        help="check that renaming changes nothing and that less evidence flips nothing",
    )
    parser.add_argument(
        "--other-rate",
        type=Path,
        metavar="FOLDER",
        help="compare the verdicts with those on the same cases there, made with `python -m fixtures.casebook --rate-factor`",
    )
    parser.add_argument(
        "--half",
        choices=("a", "b", "c", "d"),
        help="one half of the case book, or of its reported cases (c; d, of which only figures are shown)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cases whose name matches; may be repeated"
    )
    parser.add_argument(
        "--make", action="store_true", help="make the runs of the case book that are not there, before counting"
    )
    parser.add_argument("--jobs", type=int, default=1, help="inspections at a time (default 1)")
    parser.add_argument(
        "--timeout", type=float, default=240.0, metavar="SECONDS", help="time for one run (default 240)"
    )
    parser.add_argument(
        "--title", default="Case book", help="heading of the Markdown section, and its name in the page"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write scores and figures as JSON")
    parser.add_argument("--documents", type=Path, metavar="DIR", help="keep the document of each run here")
    parser.add_argument(
        "--replay-table", action="store_true", help="the Markdown section tells only what replay came to"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the tables into this page as a section; its other text stays"
    )
    return parser.parse_args(given)


def settings(options: argparse.Namespace) -> list[Setting]:
    """Which evidence is to be used, once or several times."""
    if options.matrix:
        return list(MATRIX)
    without = tuple(part for part in ("log", "batches") if getattr(options, f"no_{part}"))
    if not without and not options.no_replay:
        return [Setting("all evidence and code" if options.with_code else "all evidence", with_code=options.with_code)]
    name = ", ".join(f"no {part}" for part in (*without, *(("replay",) if options.no_replay else ())))
    return [Setting(name, replay=not options.no_replay and not options.no_batches, without=without)]


def evaluate(cases: Sequence[EvaluationCase], setting: Setting, options: argparse.Namespace) -> list[CaseScore]:
    """Inspect every case in one setting, printing a line for each."""
    scores = []
    for answer in ask_all(cases, setting, jobs=options.jobs, timeout=options.timeout):
        scores.append(judged(answer))
        if scores[-1].half != UNSEEN:
            print(case_line(scores[-1]), flush=True)
        if options.documents and answer.document is not None:
            folder = options.documents / setting.name.replace(" ", "_").replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{answer.case.name}.json").write_text(json.dumps(answer.document, indent=1))
    return scores


def judged(answer: Answer) -> CaseScore:
    """The score of an answer."""
    return score(
        answer.case.name,
        answer.case.truth,
        answer.document,
        replay=answer.setting.replay,
        seconds=answer.seconds,
        error=answer.error,
    )


def make_missing(options: argparse.Namespace) -> None:
    """Train what the case book lacks, in a process of its own; what it prints goes to standard error."""
    (out,) = options.cases if len(options.cases) == 1 else (DEFAULT_CASES,)
    command = [sys.executable, "-m", "fixtures.casebook", "--missing", "--out", str(out), "--jobs", str(options.jobs)]
    names = [word for pattern in options.only for word in ("--only", pattern)]
    subprocess.run([*command, *names], stdout=sys.stderr, check=False)


def main(given: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where a metamorphic check fails, 2 where there are no cases."""
    options = arguments(given)
    if options.make:
        make_missing(options)
    try:
        cases = find_cases(options.cases, half=options.half, only=options.only)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if not cases:
        print("no case matches; make the book with `python -m fixtures.casebook`", file=sys.stderr)
        return 2
    if options.metamorphic:
        return metamorphic(cases, replay=not options.no_replay, jobs=options.jobs, timeout=options.timeout)
    if options.other_rate:
        others = find_cases([options.other_rate], half=options.half, only=options.only)
        return other_rate(cases, others, replay=not options.no_replay, jobs=options.jobs, timeout=options.timeout)
    results = {}
    for setting in settings(options):
        print(f"--- {setting.name}: {len(cases)} runs")
        results[setting.name] = evaluate(cases, setting, options)
        print(f"\n{text_report(results[setting.name])}\n")
    if len(results) > 1:
        print(text_table(MATRIX_HEAD, matrix_rows(results)))
    if options.json:
        options.json.write_text(
            json.dumps({name: [s.record() for s in scores] for name, scores in results.items()}, indent=1) + "\n"
        )
    if options.markdown:
        page = options.markdown.read_text() if options.markdown.exists() else ""
        section = (
            replay_report(options.title, next(iter(results.values())))
            if options.replay_table
            else markdown_report(options.title, results)
        )
        options.markdown.write_text(with_section(page, options.title.lower(), section))
    return 0


if __name__ == "__main__":
    sys.exit(main())
