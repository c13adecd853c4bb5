"""From a `Report` to text in one of several formats. Renderers compute nothing about causes."""

from __future__ import annotations

from collections.abc import Callable

from ckptdoctor.model import CkptDoctorError, Report

FORMATS = ("text", "json", "markdown", "html", "junit", "github")


def render(report: Report, format: str, *, width: int | None = None, color: bool = False) -> str:  # noqa: A002 - the option's name
    """The report in one of `FORMATS`.

    Args:
        report: what to render.
        format: `text`, `json`, `markdown`, `html`, `junit` or `github`.
        width: columns, for text. color: ANSI colours, for text.

    Raises:
        CkptDoctorError: an unknown format.
    """
    if format == "text":
        from ckptdoctor.report.text import render_text

        return render_text(report, width=width, color=color)
    if format not in FORMATS:
        raise CkptDoctorError(f"expected a format among {', '.join(FORMATS)}, found '{format}'")
    return _renderer(format)(report)


def _renderer(name: str) -> Callable[[Report], str]:
    if name == "json":
        from ckptdoctor.report.json import render_json

        return render_json
    if name == "markdown":
        from ckptdoctor.report.markdown import render_markdown

        return render_markdown
    if name == "html":
        from ckptdoctor.report.html import render_html

        return render_html
    if name == "junit":
        from ckptdoctor.report.junit import render_junit

        return render_junit
    from ckptdoctor.report.github import render_github

    return render_github
