"""What a notebook shows for a report: the verdict as a small card, or the whole report as Markdown."""

from __future__ import annotations

from ckptdoctor.model import Report
from ckptdoctor.report.html import render_fragment
from ckptdoctor.report.markdown import render_markdown
from ckptdoctor.report.page import build_page


def repr_html(report: Report) -> str:
    """A fragment without scripts, classes or style sheets, which any notebook shows and none needs to trust."""
    return render_fragment("report/card.html.j2", page=build_page(report))


def repr_markdown(report: Report) -> str:
    """The whole report."""
    return render_markdown(report)
