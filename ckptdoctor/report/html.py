"""The report as one HTML file: no network, a strict content security policy, complete without scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ckptdoctor.model import Report
from ckptdoctor.report.escape import block
from ckptdoctor.report.markdown import render_markdown
from ckptdoctor.report.page import build_page

_STYLES = ("tokens.css", "base.css", "report.css", "print.css")
_SCRIPTS = ("page.js",)


def render_html(report: Report) -> str:
    """The page."""
    return render_template("report/page.html.j2", page=build_page(report), markdown=render_markdown(report))


def render_template(name: str, **values: Any) -> str:
    """A page from a template that extends `base.html.j2`, with the styles, the script and their policy.

    Args:
        name: of the template. values: what it shows; every string is escaped.
    """
    style, script = _assets()
    return _environment().get_template(name).render(style=style, script=script, policy=_policy(style, script), **values)


def render_fragment(name: str, **values: Any) -> str:
    """A piece of HTML without a page around it. Every string is escaped."""
    return _environment().get_template(name).render(**values)


def template_directory() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: an installation without templates.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "_templates", package.parent / "templates"):
        if (place / "base.html.j2").is_file():
            return place
    raise FileNotFoundError(f"the templates are missing from this installation of ckptdoctor (looked in {package})")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_directory()),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["prose"] = _prose
    environment.filters["breakable"] = _breakable
    return environment


def _shown(value: Any) -> Any:
    """Control characters and invisible marks of a stranger's text made visible, before it is escaped."""
    return block(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_CODE = re.compile("`([^`\n]+)`")


def _prose(text: str) -> Markup:
    """Escaped text in which words between backticks are code."""
    parts = _CODE.split(block(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts)
    )


def _breakable(name: str) -> Markup:
    """An escaped name that a narrow column may break after a slash or an underscore."""
    parts = re.split("(?<=[/_])", block(name))
    return Markup("<wbr>").join(escape(part) for part in parts if part)


@cache
def _assets() -> tuple[Markup, Markup]:
    """The style sheet and the script, from the package's own files only."""
    folder = template_directory() / "assets"
    style = "".join((folder / name).read_text(encoding="utf-8") for name in _STYLES)
    script = "".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return Markup(_lean_css(style)), Markup(script)  # noqa: S704 - files of this package, not data


def _lean_css(text: str) -> str:
    """Style without comments and indentation: the page is attached to tickets."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
