"""Putting a rendered report on disk: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from ckptdoctor.model import CkptDoctorError, Report
from ckptdoctor.report.escape import file_name
from ckptdoctor.report.story import subject_name

SUFFIX = ".ckptdoctor.html"
SUFFIXES = {".html": "html", ".htm": "html", ".json": "json", ".md": "markdown", ".xml": "junit", ".txt": "text"}


class OutputError(CkptDoctorError):
    """A report that could not be written where it was asked for."""


def default_name(report: Report) -> str:
    """The file name of the page: the subject's name, made harmless, with `.ckptdoctor.html`."""
    return file_name(subject_name(report)) + SUFFIX


def save_html(report: Report, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the page; without a path into the current directory, as `<name>.ckptdoctor.html`.

    Returns:
        The path written.

    Raises:
        OutputError: it cannot be written there.
    """
    from ckptdoctor.report.html import render_html

    target = Path(path) if path is not None else Path(default_name(report))
    check_target(target)
    return write_atomically(target, render_html(report))


def format_for(path: str) -> str | None:
    """The format that a file name's suffix asks for."""
    return SUFFIXES.get(Path(path).suffix.lower())


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write beside the target, then rename over it: a reader sees the old file or the whole new one.

    Returns:
        The path written.

    Raises:
        OutputError: the target is a directory or no regular file, its directory is absent or not writable, the disk is full.
    """
    target = Path(path)
    check_target(target)
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=".ckptdoctor-", suffix=".tmp")
    except OSError as error:
        raise OutputError(f"cannot write into '{target.parent}': {_why(error)}; name another place with -o") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
        Path(beside).chmod(_mode(target))
        Path(beside).replace(target)
    except OSError as error:
        raise OutputError(f"cannot write '{target}': {_why(error)}; name another place with -o") from error
    finally:
        Path(beside).unlink(missing_ok=True)
    return target


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse a target that could not be written.

    Raises:
        OutputError: a directory, something that is no regular file, or a path in a directory that does not exist.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
    except OSError:
        if not target.parent.is_dir():
            raise OutputError(
                f"the directory '{target.parent}' does not exist; make it or name another with -o"
            ) from None
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"'{target}' is a directory; name a file inside it, for example '{target / 'report.html'}'")
    if not stat.S_ISREG(mode):
        raise OutputError(f"'{target}' is not a regular file; use -o - for standard output")


def _mode(target: Path) -> int:
    """The permissions that the file has, or that a new file would get."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
