"""The committed example reports are what the program writes today."""

from __future__ import annotations

import re

import html5lib
import pytest

from ckptdoctor.report.html import _assets, _policy
from docs.make_examples import EXAMPLES, FOLDER, make


def skeleton(text: str) -> dict[str, list[str]]:
    """What must not differ between machines: headings, verdict, findings. Measured numbers may, in their last digits."""
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)

    def words(element) -> str:
        return re.sub(r"[-+]?\d[\d.,e+-]*", "0", " ".join(" ".join(element.itertext()).split()))

    return {
        "headings": [words(e) for e in root.iter() if re.fullmatch("h[12]", str(e.tag))],
        "verdict": [words(e) for e in root.iter("p") if e.get("class") == "status"],
        "rules": [e.get("id") for e in root.iter("h3") if (e.get("id") or "").startswith("rule-")],
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_committed_page_has_todays_style_and_script(name):
    policy = re.search(
        r'Content-Security-Policy" content="([^"]+)"', (FOLDER / f"{name}.html").read_text(encoding="utf-8")
    )
    assert policy is not None
    assert policy.group(1).replace("&#39;", "'") == _policy(*_assets())


@pytest.mark.replay
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_committed_page_tells_what_the_program_finds_today(name):
    assert skeleton(make(name)) == skeleton((FOLDER / f"{name}.html").read_text(encoding="utf-8"))


def test_no_page_is_without_an_example_and_no_example_without_a_page():
    assert sorted(p.stem for p in FOLDER.glob("*.html")) == sorted(EXAMPLES)
