"""`ckptdoctor scan` and `ckptdoctor merge`: many checkpoints, and the results of many scans as one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ckptdoctor.cli.config import FAIL_ON, limit_numbers, load_config
from ckptdoctor.cli.terminal import Progress, wants_color, width
from ckptdoctor.model import CkptDoctorError

if TYPE_CHECKING:
    from ckptdoctor.model import Missing, Severity
    from ckptdoctor.scanner import Counts, Scan, ScanOptions
    from ckptdoctor.scanner.output import Outputs

FORMATS = ("table", "jsonl", "markdown", "junit", "github", "html")


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `scan` and `merge` share."""
    for option in reversed(
        (
            click.option("--format", "format_", type=click.Choice(FORMATS), help="Print this format. [default: table]"),
            click.option(
                "-o",
                "--output",
                "outputs",
                metavar="FILE",
                multiple=True,
                help="Also write FILE, in the format of its suffix: .html (index page), .jsonl, .md, .xml (JUnit), .txt. Repeatable.",
            ),
            click.option("--fail-on", type=click.Choice(FAIL_ON), help="Exit 1 at this severity. [default: error]"),
            click.option(
                "--ignore-errors", is_flag=True, help="Do not exit 2 because some checkpoints were unreadable."
            ),
            click.option(
                "--color/--no-color", default=None, help="Colour the table. [default: on a terminal without NO_COLOR]"
            ),
        )
    ):
        command = option(command)
    return command


@click.command(short_help="Many checkpoints: which are sick, since when, where to resume.")
@click.argument("paths", metavar="[PATH|URL]...", nargs=-1, type=click.Path())
@_output_options
@click.option(
    "--include", metavar="PATTERN", multiple=True, help="Only checkpoints that match, e.g. 'best*.keras'. Repeatable."
)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Not these, nor directories that match. Repeatable.")
@click.option("--files-from", metavar="FILE", help="Read further paths from FILE, one a line; - is standard input.")
@click.option("--since", metavar="WHEN", help="Only what was modified since: 7d, 12h, 90min, 2026-03-01.")
@click.option("--newest", metavar="N", type=click.IntRange(min=1), help="Only the N newest checkpoints of each run.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N shares; put them together with `ckptdoctor merge`.")
@click.option(
    "--resume", metavar="FILE", help="Results file (JSON lines): skip what is unchanged in it, append the rest."
)
@click.option("--reports", metavar="DIR", help="Write a full report of each sick checkpoint into DIR.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Worker processes. [default: one a processor]")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=300.0,
    help="For one checkpoint. [default: 300]",
)
@click.option(
    "--memory", metavar="MIB", type=click.IntRange(min=64), default=1024, help="For one checkpoint. [default: 1024]"
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=limit_numbers,
    help="Let a file ask for more, or for less, e.g. json_bytes=256MiB. Repeatable.",
)
@click.option(
    "--request-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=30.0,
    help="For one remote request. [default: 30]",
)
@click.option(
    "--cluster", metavar="ADDRESS", help="Measure on the Dask cluster of this scheduler, e.g. tcp://head:8786."
)
@click.option("--config", metavar="FILE", help="TOML file with [tool.ckptdoctor]. [default: nearest pyproject.toml]")
def scan(paths: tuple[str, ...], **given: Any) -> int:
    """Look through directories, files, patterns and URLs (s3://, gs://, hf://, https://) full of checkpoints.

    Groups checkpoints into runs, measures each without TensorFlow in worker processes, and tells which are sick, since
    when, why by the fingerprint, and from where each run may resume.

    Exit status: 0 all healthy, 1 something sick, 2 something could not be read (unless --ignore-errors) or nothing was
    found.
    """
    from ckptdoctor.scanner import Scan
    from ckptdoctor.scanner.output import Outputs, targets

    settings = load_config(given["config"])
    wanted = targets(given["format_"], given["outputs"])
    options = _options(given, settings)
    with contextlib.ExitStack() as stack:
        listed = _files_from(given["files_from"], stack)
        work = Scan(paths, options, listed)
        stack.callback(work.close)
        color = wants_color(given["color"], sys.stdout)
        bar = _Bar(work.counts, _total(work, paths, options) if given["files_from"] is None else None)
        outputs = Outputs(wanted, _printer(bar), width=width(sys.stdout), color=color)
        stack.callback(outputs.discard)
        if work.results is not None and work.results.repaired:
            bar.note(f"Repaired {options.resume}: a torn last line of {work.results.repaired:,} bytes was cut off.")
        signals = stack.enter_context(_Signals(work))
        for event in work.events():
            outputs.event(event)
            bar.show()
        bar.clear()
        _finish(
            outputs,
            work.counts,
            " ".join(paths) or str(given["files_from"]),
            work.seconds,
            interrupted=work.interrupted,
        )
        if work.interrupted:
            return _interrupted(work.counts, options.resume, signals.number)
    return _status(work.counts, given, settings)


@click.command(short_help="Results files of several scans as one.")
@click.argument("files", metavar="RESULTS.jsonl...", nargs=-1, required=True, type=click.Path())
@_output_options
def merge(files: tuple[str, ...], **given: Any) -> int:
    """Put the results files of shards, or of several scans, together: a path counts once, by its last line.

    Prints and writes the same formats as `scan`, with the same exit status.
    """
    from ckptdoctor.scanner import Counts
    from ckptdoctor.scanner import merge as merged
    from ckptdoctor.scanner.output import Outputs, targets
    from ckptdoctor.scanner.runs import RunBook

    wanted = targets(given["format_"], given["outputs"])
    started = time.monotonic()
    counts, book = Counts(), RunBook()
    with contextlib.ExitStack() as stack:
        outputs = Outputs(wanted, _print, width=width(sys.stdout), color=wants_color(given["color"], sys.stdout))
        stack.callback(outputs.discard)
        for result in merged(files):
            counts.add(result)
            counts.resumed += 1
            outputs.event(result)
            book.begin(result.run)
            book.add(result)
        for summary in book.finish():
            counts.runs += 1
            counts.sick_runs += bool(summary.sick)
            outputs.event(summary)
        if not counts.done:
            raise CkptDoctorError(
                f"no result stands in {', '.join(files[:3])}; name files that `ckptdoctor scan` wrote"
            )
        _finish(outputs, counts, " ".join(files), time.monotonic() - started, interrupted=False)
    return _status(counts, given, {})


def _options(given: dict[str, Any], settings: dict[str, Any]) -> ScanOptions:
    """The command line over the configuration over the defaults."""
    from ckptdoctor.checkpoints.limits import changed_limits
    from ckptdoctor.rules.registry import check_words
    from ckptdoctor.scanner import ScanOptions
    from ckptdoctor.scanner.patterns import parse_shard, parse_since

    rules = {
        name: settings.get(name, default) for name, default in (("select", ()), ("ignore", ()), ("thresholds", {}))
    }
    check_words(select=rules["select"], ignore=rules["ignore"], overrides=rules["thresholds"])
    bounds = {**settings.get("limits", {}), **given["limits"]}
    changed_limits(bounds)
    if given["reports"] is not None:
        _make_folder(given["reports"])
    return ScanOptions(
        include=given["include"],
        exclude=given["exclude"],
        since=None if given["since"] is None else parse_since(given["since"]),
        newest=given["newest"],
        shard=None if given["shard"] is None else parse_shard(given["shard"]),
        jobs=given["jobs"],
        timeout=given["timeout"],
        memory=given["memory"],
        request_timeout=given["request_timeout"],
        resume=given["resume"],
        reports=given["reports"],
        cluster=given["cluster"],
        read_limits=bounds,
        **rules,
    )


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise CkptDoctorError(
            f"the directory {folder} for --reports cannot be made: {error.strerror}; name another"
        ) from None


def _files_from(name: str | None, stack: contextlib.ExitStack) -> Iterable[str] | None:
    """Paths of a list, read as they are needed."""
    if name is None:
        return None
    try:
        descriptor = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise CkptDoctorError(f"the list {name} cannot be read: {error.strerror}; check its name") from None
    if name != "-":
        stack.callback(os.close, descriptor)
    return listed_paths(lambda most: os.read(descriptor, most))


def listed_paths(read: Callable[[int], bytes]) -> Iterator[str]:
    """Paths one a line; or, where the first block holds a NUL, separated by NULs (`find -print0`)."""
    separator = b""
    rest = b""
    while piece := read(1 << 16):
        separator = separator or (b"\0" if b"\0" in piece else b"\n")
        *whole, rest = (rest + piece).split(separator)
        yield from (os.fsdecode(path) for raw in whole if (path := raw.rstrip(b"\r") if separator == b"\n" else raw))
    if rest.strip():
        yield os.fsdecode(rest)


def _print(text: str) -> None:
    sys.stdout.write(text)


def _printer(bar: _Bar) -> Callable[[str], None]:
    """Standard output, flushed at every line so that results stream; the bar makes room."""

    def write(text: str) -> None:
        bar.clear()
        sys.stdout.write(text)
        sys.stdout.flush()

    return write


def _finish(outputs: Outputs, counts: Counts, subject: str, seconds: float, *, interrupted: bool) -> None:
    from ckptdoctor import __version__
    from ckptdoctor.report.escape import line
    from ckptdoctor.scanner.render import Totals

    outputs.finish(Totals(subject, counts, seconds, interrupted, __version__))
    for path in outputs.paths:
        click.echo(f"Written: {line(path)}", err=True)


def _status(counts: Counts, given: dict[str, Any], settings: dict[str, Any]) -> int:
    from ckptdoctor.scanner.api import exit_status

    word = given["fail_on"] or settings.get("fail-on", "error")
    return exit_status(counts, _severity(word), ignore_errors=given["ignore_errors"])


def _severity(word: str) -> Severity | Missing:
    from ckptdoctor.model import Missing, Severity

    return Missing("--fail-on never") if word == "never" else Severity[word.upper()]


def _interrupted(counts: Counts, resume: str | None, number: int) -> int:
    """What the shell expects of a command that a signal ended; how to go on."""
    how = (
        f"continue with --resume {resume}"
        if resume
        else "with --resume FILE the next scan could have gone on from here"
    )
    click.echo(f"Interrupted after {counts.done:,} checkpoints; {how}.", err=True)
    return 128 + number


class _Signals(contextlib.AbstractContextManager["_Signals"]):
    """Ctrl-C and SIGTERM end a scan in good order; a second Ctrl-C ends it at once."""

    def __init__(self, work: Scan) -> None:
        self._work = work
        self.number = int(signal.SIGINT)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self.number = number
        self._work.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _total(work: Scan, paths: tuple[str, ...], options: ScanOptions) -> list[int] | None:
    """Counts the checkpoints ahead of the scan, in the background; only for a bar that somebody sees.

    Returns a list that holds the total once it is known; None where counting would cost requests or paths come one by one.
    """
    from ckptdoctor.scanner.urls import is_url
    from ckptdoctor.scanner.walk import Candidate, Trouble, walk

    if not sys.stderr.isatty() or any(is_url(path) for path in paths):
        return None
    total: list[int] = []

    def count() -> None:
        with contextlib.suppress(CkptDoctorError, OSError):
            events = walk(list(paths), options.filters)
            total.append(sum(work.mine(e.path) for e in events if isinstance(e, (Candidate, Trouble))))

    threading.Thread(target=count, daemon=True, name="ckptdoctor-count").start()
    return total


class _Bar:
    """Progress with rate and remaining time on standard error, only on a terminal."""

    EVERY = 0.1
    CELLS = 24

    def __init__(self, counts: Counts, total: list[int] | None) -> None:
        self._counts, self._total = counts, total
        self._line = Progress()
        self._started = time.monotonic()
        self._shown = 0.0

    def note(self, message: str) -> None:
        """A line that stays, on standard error."""
        self.clear()
        click.echo(message, err=True)

    def show(self) -> None:
        """The state now, at most ten times a second."""
        now = time.monotonic()
        if now - self._shown >= self.EVERY:
            self._shown = now
            self._line(progress_line(self._counts, self._total[0] if self._total else None, now - self._started))

    def clear(self) -> None:
        """Make room."""
        self._line.clear()


def progress_line(counts: Counts, total: int | None, seconds: float) -> str:
    """`[######------] 1,200/2,000  310/s  3 s left  12 sick  1 unreadable`; without a total, what is known."""
    fresh = counts.done - counts.resumed
    rate = fresh / seconds if seconds > 0 else 0.0
    parts = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"]
    if total:
        filled = min(_Bar.CELLS, _Bar.CELLS * counts.done // total)
        head = f"[{'#' * filled}{'-' * (_Bar.CELLS - filled)}] {counts.done:,}/{total:,}"
        if rate > 0 and counts.done < total:
            parts.append(f"{duration((total - counts.done) / rate)} left")
    else:
        head = f"{counts.done:,} measured"
    parts.append(f"{counts.sick:,} sick")
    if counts.unreadable:
        parts.append(f"{counts.unreadable:,} unreadable")
    return "  ".join((head, *parts))


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
