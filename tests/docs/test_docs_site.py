"""The site builds without a warning, needs nothing from elsewhere, and what is generated is current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from docs_blocks import ROOT

from ckptdoctor.cli import cli
from docs.manpage import escaped

DOCS = ROOT / "docs"
MAN_PAGE = (DOCS / "man" / "ckptdoctor.1").read_text(encoding="utf-8")
_LOADED = re.compile(r'<(?:script|img|iframe|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//')


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. Proxies lead nowhere, so that a download would fail."""
    target = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return target


def test_every_page_is_built_and_reachable(site):
    def leaves(node) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [leaf for item in (node if isinstance(node, list) else node.values()) for leaf in leaves(item)]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))
    assert [page for page in listed if not (site / page).with_suffix(".html").is_file()] == []


def test_no_page_loads_anything_from_elsewhere(site):
    assert [p.name for p in site.rglob("*.html") if _LOADED.search(p.read_text(encoding="utf-8"))] == []


def test_programs_that_make_documents_are_not_published(site):
    assert list(site.rglob("*.py")) == []


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_generated_pages_are_current():
    # In a process of its own: blocks of code that other tests run here may change what commands say of themselves.
    root = Path(__file__).parents[2]
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_man_page_has_every_command_and_option():
    root = click.Context(cli)
    for name in cli.list_commands(root):
        assert f".SS {escaped(name)}\n" in MAN_PAGE
        for parameter in cli.get_command(root, name).params:
            if isinstance(parameter, click.Option):
                assert all(escaped(option) in MAN_PAGE for option in parameter.opts)


def test_the_man_page_uses_only_macros_of_man_pages():
    requests = {line.split()[0] for line in MAN_PAGE.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".nf", ".fi"}


@pytest.mark.parametrize(
    ("text", "roff"),
    [("--log", r"\-\-log"), (".hidden", r"\&.hidden"), ("'x'", r"\&'x'"), ("a\\b", r"a\(rsb"), ("a\n.b", "a\n\\&.b")],
)
def test_text_is_never_a_request(text, roff):
    assert escaped(text) == roff
