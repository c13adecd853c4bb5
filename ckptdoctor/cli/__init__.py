"""The command line. The only place that prints or exits; commands are imported when they are asked for.

Exit status: 0 nothing wrong, 1 something wrong was found (at or above --fail-on), 2 the question could not be answered.
130 and 141 are the shell's numbers for an interrupt and for a closed pipe.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from ckptdoctor import __version__
from ckptdoctor.model import CkptDoctorError

# name → (module, attribute, one line for the overview). The line stands here so that the overview imports no command.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "inspect": ("ckptdoctor.cli.inspect", "inspect", "Post-mortem of a checkpoint or a run directory."),
    "scan": ("ckptdoctor.cli.scan", "scan", "Many checkpoints: which are sick, since when, where to resume."),
    "merge": ("ckptdoctor.cli.scan", "merge", "Results files of several scans as one."),
    "explain": ("ckptdoctor.cli.explain", "explain", "What a rule checks, or what a cause means."),
    "rules": ("ckptdoctor.cli.rules", "rules", "All rules."),
    "completion": ("ckptdoctor.cli.completion", "completion", "A script that lets the shell complete commands."),
}


class _ClosedPipeError(Exception):
    """A `BrokenPipeError` that click does not know: its own answer is status 1, which here means a finding."""


class _LazyGroup(click.Group):
    """A group that imports a command's module only when the command runs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ClosedPipeError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ckptdoctor", message="%(prog)s %(version)s")
def cli() -> None:
    """Post-mortem of a dead Keras training run, from the files it left behind.

    Says where it broke (layer, variable, op), when (epoch, step, batch), why, and which fix was tried and worked.

    Exit status: 0 nothing wrong, 1 something wrong was found, 2 the question could not be answered.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character shows its number
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        status = cli.main(args=arguments, prog_name="ckptdoctor", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except CkptDoctorError as error:
        fail(str(error))
        return error.exit_status
    except (click.Abort, KeyboardInterrupt):
        _say("\nInterrupted; nothing was written.")
        return 130
    except (_ClosedPipeError, BrokenPipeError):
        return _closed_pipe()
    return status if isinstance(status, int) else 0


def _closed_pipe() -> int:
    """Whoever read our output stopped reading. Without a new target the interpreter would complain when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return 141


def fail(message: str) -> None:
    """One sentence on standard error."""
    from ckptdoctor.report.escape import line

    _say(f"Error: {line(message)}")


def _say(message: str) -> None:
    click.echo(message, err=True)
