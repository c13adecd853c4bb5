"""The man page, made from the commands' own help: text in roff, one section a command."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

_EXIT = (
    ("0", "nothing wrong was found"),
    ("1", "something wrong was found, at or above --fail-on; never anything else"),
    ("2", "the question could not be answered: bad usage, nothing there, a file that cannot be read"),
    ("130", "interrupted"),
    ("141", "whoever read the output stopped reading"),
)
_ENVIRONMENT = (
    ("NO_COLOR", "no colours, whatever the terminal can do"),
    ("COLUMNS", "width of the text"),
    ("MLFLOW_TRACKING_URI, MLFLOW_RUN_ID, MLFLOW_EXPERIMENT_NAME", "where --publish mlflow logs to"),
    ("WANDB_MODE, WANDB_PROJECT, WANDB_DIR", "where --publish wandb logs to"),
)


def man_page(cli: click.Group, version: str) -> str:
    """The whole of `ckptdoctor.1`. It holds no date, so that the same program gives the same page."""
    root = click.Context(cli, info_name="ckptdoctor", **cli.context_settings)
    lines = [
        f'.TH CKPTDOCTOR 1 "" "ckptdoctor {escaped(version)}" "User Commands"',
        ".SH NAME",
        r"ckptdoctor \- post\-mortem of a dead Keras training run",
        ".SH SYNOPSIS",
        r".B ckptdoctor",
        r".I COMMAND \fR[\fIOPTIONS\fR] \fR[\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_paragraphs((cli.help or "").split("Exit status:")[0]),
        ".SH COMMANDS",
    ]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=root) as context:
            lines += _command(command, context)
    lines += [".SH EXIT STATUS", *_terms(_EXIT), ".SH ENVIRONMENT", *_terms(_ENVIRONMENT)]
    lines += [
        ".SH FILES",
        *_terms([("pyproject.toml", "[tool.ckptdoctor] of the nearest one holds defaults for options")]),
        ".SH SEE ALSO",
        r"\fBckptdoctor rules\fR lists what is checked, \fBckptdoctor explain\fR \fICODE\fR tells all about a rule.",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text in which roff sees nothing to act on."""
    plain = text.replace("\\", r"\(rs").replace("-", r"\-").replace("…", "...")
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in plain.split("\n"))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {escaped(command.name or '')}"
    yield f".B ckptdoctor {escaped(command.name or '')}"
    yield f".I {escaped(usage)}"
    yield from _paragraphs(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from _terms([record])


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in paragraph.strip().split("\n")]
        if lines[0] == "\b":  # click's mark for lines that stay as they are
            yield from (".PP", ".nf", escaped("\n".join(lines[1:])), ".fi")
        else:
            yield from (".PP", escaped(" ".join(paragraph.split())))


def _terms(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, about in rows:
        yield from (".TP", f".B {escaped(term)}", escaped(" ".join(about.split())))
