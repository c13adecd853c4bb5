"""A scan in one of several formats. Each renderer is fed results and runs as they come and holds a bounded part of them."""

from __future__ import annotations

from collections.abc import Callable

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.render.base import Renderer, Totals, Write

FORMATS = ("table", "jsonl", "markdown", "junit", "github", "html")
SUFFIXES = {".txt": "table", ".jsonl": "jsonl", ".md": "markdown", ".xml": "junit", ".html": "html", ".htm": "html"}

__all__ = ["FORMATS", "SUFFIXES", "Renderer", "Totals", "renderer"]


def renderer(
    name: str, write: Write, *, width: int | None = None, color: bool = False, beside: str | None = None
) -> Renderer:
    """The renderer of that format.

    Args:
        name: one of `FORMATS`.
        write: takes the text, piece by piece.
        width: columns, for the table. color: ANSI colours, for the table.
        beside: directory of the file that is written, for links relative to it.

    Raises:
        CkptDoctorError: an unknown format.
    """
    if name == "table":
        from ckptdoctor.scanner.render.table import Table

        return Table(write, width=width, color=color)
    if name == "html":
        from ckptdoctor.scanner.render.html import Html

        return Html(write, beside=beside)
    makers: dict[str, Callable[[], Renderer]] = {
        "jsonl": lambda: _jsonl(write),
        "markdown": lambda: _markdown(write),
        "junit": lambda: _junit(write),
        "github": lambda: _github(write),
    }
    if name not in makers:
        raise CkptDoctorError(f"expected a format among {', '.join(FORMATS)}, found '{name}'")
    return makers[name]()


def _jsonl(write: Write) -> Renderer:
    from ckptdoctor.scanner.render.jsonl import JsonLines

    return JsonLines(write)


def _markdown(write: Write) -> Renderer:
    from ckptdoctor.scanner.render.markdown import Markdown

    return Markdown(write)


def _junit(write: Write) -> Renderer:
    from ckptdoctor.scanner.render.junit import Junit

    return Junit(write)


def _github(write: Write) -> Renderer:
    from ckptdoctor.scanner.render.github import Github

    return Github(write)
