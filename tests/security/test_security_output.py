"""Hostile names through everything that is printed or written: nothing becomes markup, a command or a control code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import ckptdoctor
from ckptdoctor.report import render
from ckptdoctor.report.writing import default_name
from fixtures.hostile_parts import archive, dense, model, weights

NAMES = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"' onmouseover=alert(1) x='",
    "image": "<img src=x onerror=alert(1)>",
    "escape": "a\x1b[31mred\x1b]0;title\x07",
    "formula": "=cmd|'/C calc'!A0",
    "newline": "one\r\n::error file=x::two\n## three",
    "entities": "&lt;b&gt; &#0; ]]> --> {{ 7*7 }} {% raw %}",
    "reordering": "safe\u202egnp.exe\u2066\u200b",
    "markdown": "[x](javascript:alert(1)) `code` | cell | @everyone #1 https://example.org",
    "surrogate": "bad\udc80end",
    "nul": "a\0b",
}
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069\u200b-\u200f]")


class Page(HTMLParser):
    """Elements and attributes of a page that could act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.handlers, self.links, self.images = 0, [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.handlers += [a for a, _ in attributes if a.startswith("on")]
        self.links += [v or "" for a, v in attributes if a in ("href", "src", "action", "srcdoc", "formaction")]


def sick(name: str) -> bytes:
    """A checkpoint whose only layer has this name and holds a NaN."""

    def spoil(_file, group):
        group["0"][0, 0] = np.nan

    stored = name.replace("\0", "").encode("utf-8", "replace").decode()  # HDF5 texts end at NUL and are UTF-8
    return archive(model(layer=dense(name)), weights(spoil, name=stored))


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    found = {}
    for key, name in {"plain": "dense", **NAMES}.items():
        path = folder / f"{key}.keras"
        path.write_bytes(sick(name))
        found[key] = ckptdoctor.inspect(path, replay=False)
        assert found[key].verdict.status.value == "sick"
    return found


@pytest.mark.parametrize("key", NAMES)
class TestInspect:
    def test_page(self, reports, key):
        page, plain = Page(render(reports[key], "html")), Page(render(reports["plain"], "html"))
        assert (page.scripts, page.images) == (plain.scripts, plain.images)
        assert set(page.handlers) == set(plain.handlers)
        assert not [link for link in page.links if link.lower().startswith(("javascript:", "data:text"))]
        assert "{{ 7*7 }}" in NAMES["entities"]
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", render(reports[key], "html"))

    def test_document(self, reports, key):
        text = render(reports[key], "json")
        document = json.loads(text, parse_constant=lambda c: pytest.fail(f"a bare {c}"))
        text.encode("utf-8")
        assert document["schema_version"]

    def test_terminal_text(self, reports, key):
        assert not CONTROLS.search(render(reports[key], "text"))

    def test_markdown(self, reports, key):
        text = render(reports[key], "markdown")
        assert not CONTROLS.search(text.replace("&#8203;", ""))
        prose = re.sub(r"(`+).+?\1", "", text, flags=re.DOTALL)
        assert "<script" not in prose
        assert "<img" not in prose
        assert not re.search(r"(?<!\\)\]\(javascript:", prose)
        assert not re.search(r"^## three", text, re.MULTILINE)

    def test_junit(self, reports, key):
        root = ET.fromstring(render(reports[key], "junit"))
        assert root.tag in ("testsuites", "testsuite")

    def test_annotations(self, reports, key):
        lines = render(reports[key], "github").splitlines()
        plain = render(reports["plain"], "github").splitlines()
        assert len(lines) == len(plain)
        assert all(line.startswith("::") for line in lines)
        assert not any("file=x::two" in line.split("::", 2)[1] for line in lines)


FILES = [
    "<img src=x onerror=alert(1)>.keras",
    "=cmd|calc!A0.keras",
    "new\nline ::error::x.keras",
    "esc\x1b[31m.keras",
    "-rf.keras",
    b"latin-\xe9.keras".decode("utf-8", "surrogateescape"),
    "a..b.keras",
]


@pytest.mark.parametrize("name", FILES)
def test_report_file_names_are_plain(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(sick("dense"))
    written = default_name(ckptdoctor.inspect(path, replay=False))
    assert re.fullmatch(r"[A-Za-z0-9_][\w.+-]*\.ckptdoctor\.html", written)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Hostile names of layers and files through every format of `scan`."""
    folder = tmp_path_factory.mktemp("scan")
    for key, name in NAMES.items():
        (folder / f"{key}.keras").write_bytes(sick(name))
    for name in FILES:
        (folder / name).write_bytes(sick("dense"))
    results = folder.parent / "results.jsonl"
    command("scan", str(folder), "--jobs", "2", "-o", str(results))
    texts = {"jsonl": results.read_text()}
    for format_ in ("table", "markdown", "junit", "github", "html"):
        texts[format_] = command("merge", str(results), "--format", format_)
    return texts


def command(*arguments: str) -> str:
    """What a command prints; every one of these files is sick."""
    start = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]
    done = subprocess.run([*start, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    return done.stdout


class TestScan:
    def test_lines(self, scanned):
        lines = [json.loads(line) for line in scanned["jsonl"].split("\n") if line]
        assert len(lines) == len(NAMES) + len(FILES)
        assert scanned["jsonl"].isascii()
        assert {line["status"] for line in lines} == {"sick"}

    @pytest.mark.parametrize("format_", ["table", "markdown", "github", "junit"])
    def test_no_control_codes(self, scanned, format_):
        assert not CONTROLS.search(scanned[format_])

    def test_page(self, scanned):
        page = Page(scanned["html"])
        assert page.images == 0
        assert page.handlers == []
        assert page.scripts <= 1
        assert not [link for link in page.links if link.lower().startswith(("javascript:", "data:text"))]

    def test_junit(self, scanned):
        assert len(list(ET.fromstring(scanned["junit"]).iter("testcase"))) >= len(NAMES)

    def test_annotations(self, scanned):
        assert all(line.startswith("::") for line in scanned["github"].splitlines() if line)

    def test_markdown(self, scanned):
        prose = re.sub(r"(`+).+?\1", "", scanned["markdown"], flags=re.DOTALL)
        assert "<script" not in prose
        assert "<img" not in prose
