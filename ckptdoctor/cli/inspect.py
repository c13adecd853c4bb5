"""`ckptdoctor inspect`: one run, from its files to a verdict and a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ckptdoctor.cli.completion import rule_words
from ckptdoctor.cli.config import FAIL_ON, limit_numbers, load_config
from ckptdoctor.cli.terminal import Progress, wants_color, width

if TYPE_CHECKING:
    from ckptdoctor.api import InspectOptions
    from ckptdoctor.model import Missing, Report, Severity
    from ckptdoctor.publish import Destination

FORMATS = ("text", "json", "markdown", "html", "junit", "github")


def _words(_ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """`--select A,B --select C` as (A, B, C)."""
    return tuple(word.strip() for item in value for word in item.split(",") if word.strip())


def _thresholds(_ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """`--threshold CKD203.growth=5` as numbers by name."""
    numbers: dict[str, float] = {}
    for item in value:
        name, separator, number = item.partition("=")
        try:
            numbers[name.strip()] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise click.BadParameter(f"expected CODE.NAME=NUMBER, found '{item}'; `ckptdoctor explain CODE` shows them")
    return numbers


@click.command(short_help="Post-mortem of a checkpoint or a run directory.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Print this format instead of writing a page.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write to FILE (- is standard output); its suffix implies a format."
)
@click.option(
    "--also",
    metavar="FILE",
    multiple=True,
    help="Also write FILE, in the format of its suffix: .html, .json, .md, .xml (JUnit), .txt. Repeatable.",
)
@click.option(
    "--publish",
    "destinations",
    metavar="TRACKER[=WHERE]",
    multiple=True,
    help="Also log the report to mlflow[=RUN], wandb[=RUN] or tensorboard[=DIR]. Repeatable.",
)
@click.option("--log", metavar="FILE", multiple=True, help="Training log to use. Repeatable. [default: found beside]")
@click.option(
    "--batches", metavar="PATH", multiple=True, help="Recorded batches to use. Repeatable. [default: found beside]"
)
@click.option("--replay/--no-replay", default=None, help="Replay the last batches. [default: where that is possible]")
@click.option(
    "--build", metavar="MODULE:FUNCTION", help="Function that returns the model, for files with weights only."
)
@click.option("--custom-objects", metavar="MODULE", help="Module with the run's own layers and losses. It is imported.")
@click.option("--device", metavar="auto|cpu|gpu|gpu:N", help="Where to replay. [default: auto]")
@click.option("--steps", metavar="N", type=click.IntRange(min=1), help="Most training steps to replay. [default: 400]")
@click.option("--budget", metavar="SECONDS", type=click.FloatRange(min=0), help="Time for experiments. [default: 25]")
@click.option("--trust", is_flag=True, help="Replay models whose configuration would run code of its own.")
@click.option("--unsafe-lambda", is_flag=True, help="With --trust: run Python code stored inside Lambda layers too.")
@click.option(
    "--select",
    metavar="RULES",
    multiple=True,
    callback=_words,
    shell_complete=rule_words,
    help="Only these codes, prefixes or names.",
)
@click.option(
    "--ignore",
    metavar="RULES",
    multiple=True,
    callback=_words,
    shell_complete=rule_words,
    help="Not these codes, prefixes or names.",
)
@click.option(
    "--threshold",
    "thresholds",
    metavar="CODE.NAME=NUMBER",
    multiple=True,
    callback=_thresholds,
    help="Judge by another number. Repeatable.",
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=limit_numbers,
    help="Let a file ask for more, or for less, e.g. json_bytes=256MiB. Repeatable.",
)
@click.option("--fail-on", type=click.Choice(FAIL_ON), help="Exit 1 at findings of this severity. [default: error]")
@click.option(
    "--threads", metavar="N", type=click.IntRange(min=1), help="Threads for reading. [default: by the machine]"
)
@click.option("--config", metavar="FILE", help="TOML file with [tool.ckptdoctor]. [default: nearest pyproject.toml]")
@click.option("--color/--no-color", default=None, help="Colour the text. [default: on a terminal without NO_COLOR]")
def inspect(paths: tuple[str, ...], **given: Any) -> int:
    """Perform the post-mortem on a checkpoint, or on a run directory with checkpoints, logs and batches.

    Prints a short verdict and writes a page, NAME.ckptdoctor.html, into the current directory. With --format the report
    goes to standard output (or to --output) instead, and nothing else is printed there.
    """
    from ckptdoctor.api import inspect as run
    from ckptdoctor.model import Status
    from ckptdoctor.publish import parse

    settings = load_config(given["config"])
    _check_output(given["output"], given["also"])
    places = [parse(text) for text in given["destinations"]]
    progress = Progress()
    try:
        report = run(paths, _options(given, settings), progress)
    finally:
        progress.clear()
    _deliver(report, given["format_"], given["output"], given["color"], progress)
    _deliver_also(report, given["also"], places, progress)
    if report.verdict.status is Status.UNREADABLE:
        from ckptdoctor.cli import fail

        fail(report.verdict.headline)
    return report.exit_status(_fail_on(given["fail_on"] or settings.get("fail-on", "error")))


def _options(given: dict[str, Any], settings: dict[str, Any]) -> InspectOptions:
    """The command line over the configuration over the defaults."""
    from ckptdoctor.api import InspectOptions

    values: dict[str, Any] = {
        "log": given["log"],
        "batches": given["batches"],
        "trust": given["trust"],
        "unsafe_lambda": given["unsafe_lambda"],
        "thresholds": {**settings.get("thresholds", {}), **given["thresholds"]},
        "limits": {**settings.get("limits", {}), **given["limits"]},
    }
    for name in ("select", "ignore", "replay", "device", "steps", "budget", "threads", "build", "custom_objects"):
        value = given[name] if given[name] not in (None, ()) else settings.get(name.replace("_", "-"))
        if value is not None:
            values[name] = value
    return InspectOptions(**values)


def _fail_on(word: str) -> Severity | Missing:
    from ckptdoctor.model import Missing, Severity

    return Missing("--fail-on never") if word == "never" else Severity[word.upper()]


def _check_output(output: str | None, also: tuple[str, ...]) -> None:
    """Refuse a target that cannot be written before minutes are spent on the report."""
    from ckptdoctor.report.writing import SUFFIXES, check_target, format_for

    for path in also:
        if format_for(path) is None:
            raise click.BadParameter(
                f"expected a file that ends in {', '.join(SUFFIXES)}, found '{path}'", param_hint="--also"
            )
    for path in (*also, *([] if output in (None, "-") else [output])):
        check_target(path)


def _deliver(report: Report, format_: str | None, output: str | None, color: bool | None, progress: Progress) -> None:
    from ckptdoctor.report import render
    from ckptdoctor.report.escape import line
    from ckptdoctor.report.writing import default_name, format_for, write_atomically

    kind = format_ or (format_for(output) if output else None) or "html"
    progress("writing the report")
    colored = wants_color(color, sys.stdout)
    if output == "-" or (format_ is not None and output is None):
        text = render(report, kind, width=width(sys.stdout), color=colored)
        progress.clear()
        click.echo(text, nl=False, color=colored)
        return
    written = write_atomically(output or default_name(report), render(report, kind))
    progress.clear()
    if format_ is None:
        from ckptdoctor.report.text import render_summary

        click.echo(render_summary(report, width=width(sys.stdout), color=colored), nl=False, color=colored)
        click.echo(f"\nReport: {line(written)}")


def _deliver_also(report: Report, also: tuple[str, ...], places: list[Destination], progress: Progress) -> None:
    """The further files, then the trackers: what fails there costs nobody the report."""
    from ckptdoctor.publish import publish
    from ckptdoctor.report import render
    from ckptdoctor.report.escape import line
    from ckptdoctor.report.writing import format_for, write_atomically

    for path in also:
        written = write_atomically(path, render(report, format_for(path) or "html"))
        click.echo(f"Written: {line(written)}", err=True)
    for place in places:
        progress(f"publishing to {place.tracker}")
        (where,) = publish(report, [place])
        progress.clear()
        click.echo(f"Published: {line(where)}", err=True)
