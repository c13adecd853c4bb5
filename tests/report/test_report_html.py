"""The page as a file: valid, self-contained, small, complete without scripts. How it behaves is in test_report_browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import html5lib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_factories import (
    ALL,
    HOSTILE,
    exploding_rnn,
    healthy,
    hostile,
    large,
    nan_feature,
    nothing_known,
    unreadable,
)

from ckptdoctor.model import Cause
from ckptdoctor.model.replay import Baseline, Skill
from ckptdoctor.report import render
from ckptdoctor.report.html import _environment as environment
from ckptdoctor.report.html import _prose, template_directory

PAGES = {**ALL, "medium": lambda: large(200), "large": large}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render(make(), "html") for name, make in PAGES.items()}


def tree(text: str) -> ET.Element:
    """The parsed page; any parse error fails."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def texts(root: ET.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


@pytest.mark.parametrize("name", PAGES)
def test_it_is_valid_html(pages, name):
    tree(pages[name])


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique_and_every_anchor_resolves(pages, name):
    root = tree(pages[name])
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)
    wanted = {e.get("href")[1:] for e in root.iter("a")}
    for attribute in ("aria-labelledby", "aria-describedby", "data-filter", "data-copy-from"):
        wanted |= {word for e in root.iter() for word in (e.get(attribute) or "").split()}
    assert wanted <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_and_nothing_inline_escapes_the_policy(pages, name):
    root = tree(pages[name])
    for element in root.iter():
        for attribute, value in element.items():
            assert not attribute.lower().startswith("on")
            assert attribute != "style"
            if attribute in ("src", "href", "action", "data", "poster", "srcset"):
                assert value.startswith(("#", "data:image/svg+xml,"))
    assert not [
        e.tag for e in root.iter() if e.tag in ("iframe", "object", "embed", "base", "form", "img", "audio", "video")
    ]


@pytest.mark.parametrize("name", ["nan_feature", "hostile"])
def test_the_policy_allows_exactly_the_one_style_and_the_one_script(pages, name):
    root = tree(pages[name])
    policy = next(e.get("content") for e in root.iter("meta") if e.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert "'none'" == rules["default-src"] == rules["base-uri"] == rules["form-action"]
    assert "unsafe" not in policy
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (element,) = root.iter(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" == rules[rule]


def test_sizes(pages):
    for name in ALL:
        assert len(pages[name].encode()) <= 150_000
    assert len(pages["medium"].encode()) <= 300_000
    assert len(pages["large"].encode()) <= 1_000_000


def test_size_is_bounded_by_the_layout_not_by_the_model():
    assert len(render(large(2000), "html")) < 1.5 * len(render(large(1000), "html"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(pages, name):
    shown = texts(tree(pages["hostile"]))
    visible = name.replace("\x1b", "\\e").replace("\x07", "\\x07").replace("\r", "\\r").replace("\n", " ")
    visible = visible.replace("\u202e", "\\u202e").replace("\u202c", "\\u202c")
    assert visible in shown


def test_there_are_no_invisible_characters(pages):
    assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", pages["hostile"])


@settings(max_examples=200)
@given(st.text())
@example("\ufdd0\ufdef\uffff\U0001fffe\U0010ffff")  # code points that are no characters
def test_prose_is_escaped(text):
    root = tree(f"<!doctype html><title>x</title><p>{_prose(text)}</p>")
    assert {"html", "head", "title", "body", "p", "code"} >= {e.tag for e in root.iter()}


def test_templates_escape_by_default():
    assert environment().autoescape is True
    assert "|safe" not in "".join(p.read_text().replace(" ", "") for p in template_directory().rglob("*.j2"))


def headings(root: ET.Element) -> list[str]:
    return [texts(e) for e in root.iter("h2")]


def test_sections_come_in_the_order_of_a_readers_questions(pages):
    assert headings(tree(pages["nan_feature"])) == [
        "What to do now",
        "Where it broke",
        "When it broke",
        "How: the replay",
        "What was tried",
        "Why this cause and not another",
        "Findings",
        "The last batches",
        "What was not checked",
        "Files and versions",
        "For an issue tracker",
    ]


def test_sections_without_content_are_absent(pages):
    shown = headings(tree(pages["unreadable"]))
    assert shown == ["What to do now", "What was not checked", "Files and versions", "For an issue tracker"]


@pytest.mark.parametrize("name", PAGES)
def test_headings_do_not_skip_levels(pages, name):
    levels = [int(e.tag[1]) for e in tree(pages[name]).iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert 1 == levels[0] == levels.count(1)
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_every_drawing_has_words_or_is_decoration(pages, name):
    root = tree(pages[name])
    parents = {child: parent for parent in root.iter() for child in parent}
    outer = [e for e in root.iter(f"{SVG}svg") if not str(parents[e].tag).startswith(SVG)]
    for drawing in outer:
        named = drawing.get("aria-label") or drawing.get("aria-labelledby")
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and named)


def test_the_verdict_is_complete_without_scripts(pages):
    shown = texts(tree(re.sub(r"<script>.*?</script>", "", pages["nan_feature"], flags=re.DOTALL)))
    for words in (
        "NaN or infinity in the data",
        "right in about 98 of 100 such cases",
        "tested by replay: the failure is gone",
        "x, y = x[mask], y[mask]",
        "epoch_000.keras",
        "64 of 640",
        "without row 5 of batch 0",
        "## Sick: `nan_feature`",
    ):
        assert words in shown


def test_script_only_controls_are_hidden_until_the_script_runs(pages):
    root = tree(pages["nan_feature"])
    assert all(e.get("hidden") is not None for e in root.iter("button"))


def test_nonfinite_values_are_drawn(pages):
    lanes = [
        e
        for e in tree(pages["exploding_rnn"]).iter(f"{SVG}title")
        if "is NaN" in (e.text or "") or "is Inf" in (e.text or "")
    ]
    assert {"loss is Inf at 11", "loss is NaN at 12 to 13", "val_loss is Inf at 10"} <= {e.text for e in lanes}


def test_the_first_nonfinite_value_is_marked(pages):
    assert "first Inf: val_loss, epoch 10" in texts(tree(pages["exploding_rnn"]))


def test_the_origin_is_marked_in_the_graph(pages):
    (row,) = [e for e in tree(pages["float16_overflow"]).iter("li") if e.get("class") == "origin"]
    assert "block3_conv_a" in texts(row)
    assert "origin" in texts(row)


def test_large_models_are_aggregated_and_say_so(pages):
    shown = texts(tree(pages["large"]))
    assert "4,001 layers, 2,000 with non-finite entries" in shown
    assert "300 of 8,000 tensors" in shown
    assert "40 of 4,000 layers" in shown
    assert re.search(r"and 1,\d\d\d more of this kind", shown)


def test_what_was_not_checked_tells_how_to_record_it(pages):
    shown = texts(tree(pages["nothing_known"]))
    assert "no training log was found" in shown
    assert "keras.callbacks.CSVLogger('training_log.csv')" in shown
    assert "ZeroDivisionError: division by zero" in shown


@pytest.mark.parametrize(
    ("make", "status"), [(healthy, "Healthy"), (unreadable, "Unreadable"), (nothing_known, "Sick")]
)
def test_the_title_says_it_all(make, status):
    title = next(tree(render(make(), "html")).iter("title")).text
    assert title.startswith(status)
    assert title.endswith("– ckptdoctor")


def test_the_why_panel_is_the_rules_own_documentation(pages):
    shown = texts(tree(pages["nan_feature"]))
    assert "How to confirm" in shown
    assert "Thresholds" in shown


def test_rendering_is_reproducible():
    assert render(exploding_rnn(), "html") == render(exploding_rnn(), "html")


def test_templates_are_found_from_a_wheel(tmp_path):
    """A wheel carries the templates inside the package; the checkout's folder is not needed."""
    root = Path(__file__).parents[2]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(build, check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, timeout=240)
    code = "from ckptdoctor.report.html import template_directory as t; print(t()); import ckptdoctor; print(ckptdoctor.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": ""},
    ).stdout
    assert [str(target / "ckptdoctor" / "_templates"), str(target / "ckptdoctor" / "__init__.py")] == shown.split()
    assert (target / "ckptdoctor" / "_templates" / "assets" / "page.js").is_file()


def test_the_page_of_a_single_finding_has_a_stable_anchor():
    assert 'id="CKD401-1"' in render(nan_feature(), "html")


def test_it_says_nothing_of_hostile_html_in_the_head(pages):
    head = pages["hostile"].split("</head>")[0]
    assert "<img" not in head
    assert "&lt;img src=x onerror=alert(1)&gt;" in head


def test_hostile_reports_render_in_every_format():
    for name in ("text", "json", "markdown", "html", "junit", "github"):
        assert render(hostile(), name)


# --- notebooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_card_is_a_valid_fragment_without_scripts(name):
    from ckptdoctor.report.notebook import repr_html

    card = repr_html(ALL[name]())
    root = tree(f"<!doctype html><title>x</title>{card}")
    assert {
        "html",
        "head",
        "title",
        "body",
        "div",
        "p",
        "strong",
        "code",
        "table",
        "tbody",
        "tr",
        "th",
        "td",
        "pre",
        "small",
    } >= {e.tag for e in root.iter()}
    assert len(card) < 12_000


def test_a_notebook_card_tells_verdict_fix_and_where_to_resume():
    from ckptdoctor.report.notebook import repr_html, repr_markdown

    shown = texts(tree(f"<!doctype html><title>x</title>{repr_html(nan_feature())}"))
    for words in (
        ": NaN or infinity in the data ( data_nonfinite ), confirmed",
        "dense/kernel",
        "tested by replay",
        "x[mask]",
        "epoch_000.keras",
    ):
        assert words in shown
    assert repr_markdown(nan_feature()) == render(nan_feature(), "markdown")


def test_the_page_is_saved_under_its_own_name(tmp_path, monkeypatch):
    from ckptdoctor.report.writing import save_html

    monkeypatch.chdir(tmp_path)
    assert str(save_html(nan_feature())) == "nan_feature.ckptdoctor.html"
    assert (tmp_path / "nan_feature.ckptdoctor.html").read_text(encoding="utf-8") == render(nan_feature(), "html")
    assert save_html(nan_feature(), tmp_path / "x.html").is_file()


def test_what_removes_a_fault_of_the_loss_is_another_loss_where_the_same_run_learns_under_it():
    report = exploding_rnn()
    after = Skill(0.9)
    baseline = Baseline("first", None, 100, False, after=after)
    replay = dataclasses.replace(report.evidence.replay, custom_loss="turned", baseline=baseline)
    verdict = dataclasses.replace(report.verdict, cause=Cause.LOSS_FUNCTION)
    changed = dataclasses.replace(
        report,
        evidence=dataclasses.replace(report.evidence, replay=replay),
        diagnosis=dataclasses.replace(report.diagnosis, verdict=verdict),
    )
    page = render(changed, "html")
    assert "under the usual one in place of turned the same run learns" in page
    assert "under the usual one" not in render(report, "html")
