"""Markdown for issue trackers: the page's story, bounded in size, with nothing active in a stranger's text."""

from __future__ import annotations

import dataclasses

import pytest
from gold import agrees_with_gold
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_factories import ALL, HOSTILE, exploding_rnn, hostile, large, nan_feature

from ckptdoctor.report import render
from ckptdoctor.report.escape import markdown, markdown_code, markdown_fence

LIMIT = 60_000


def tokens(text: str):
    """All tokens of a text as a tracker would parse it, inline ones included."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    for token in parser.parse(text):
        yield token
        yield from token.children or ()


@pytest.mark.parametrize("name", [n for n in ALL if n != "hostile"])
def test_gold(name):
    agrees_with_gold(f"{name}.md", render(ALL[name](), "markdown"))


def test_sections_come_in_the_order_of_a_readers_questions():
    heads = [row for row in render(nan_feature(), "markdown").split("\n") if row.startswith("#")]
    assert heads == [
        "## Sick: `nan_feature`",
        "### What to do now",
        "### Where",
        "### When",
        "### How: the replay",
        "### What was tried",
        "### Why this cause and not another",
        "### Findings",
        "### The last batches",
        "### What was not checked",
        "### Files and versions",
    ]


@pytest.mark.parametrize("make", [hostile, large])
def test_it_stays_below_the_limit(make):
    assert len(render(make(), "markdown")) < LIMIT


def test_it_stays_below_the_limit_whatever_the_names_are():
    report = nan_feature()
    endless = dataclasses.replace(report.findings[0], message="~<>&" * 40_000, layer="`" * 50_000)
    worst = dataclasses.replace(report, findings=(endless,) * 500)
    text = render(worst, "markdown")
    assert len(text) < LIMIT
    assert len(text.encode()) < 65_536


def test_nothing_of_a_stranger_is_active():
    found = list(tokens(render(hostile(), "markdown")))
    assert not [t.content for t in found if t.type in ("html_block", "html_inline")]
    assert not [t for t in found if t.type in ("link_open", "image", "s_open")]


def test_mentions_and_references_are_broken_up():
    text = markdown("@everyone see #12, GH-3, https://evil.example and www.evil.example")
    for active in ("@everyone", "#12", "GH-3", "https://", "www."):
        assert active not in text


@given(st.text(max_size=80) | st.sampled_from(HOSTILE))
def test_prose_renders_as_itself(text):
    inline = [t for t in tokens("x " + markdown(text)) if t.type != "text"]
    assert {t.type for t in inline} <= {
        "paragraph_open",
        "paragraph_close",
        "inline",
        "code_inline",
        "text_special",
        "softbreak",
    }


@given(st.text(max_size=80) | st.sampled_from(HOSTILE))
def test_a_code_span_is_one_code_span(text):
    found = [t.type for t in tokens("x " + markdown_code(text)) if t.type == "code_inline"]
    assert len(found) <= 1
    assert not [t for t in tokens("x " + markdown_code(text)) if t.type in ("html_inline", "link_open", "em_open")]


@given(st.text(max_size=200))
def test_a_fence_cannot_be_ended_from_inside(text):
    kinds = [t.type for t in tokens(markdown_fence(text, "python"))]
    assert kinds == ["fence"]


def test_words_between_backticks_stay_code():
    assert markdown("use `clipnorm=1.0` here") == "use `clipnorm=1.0` here"


def test_tables_have_one_shape():
    for row_count in _tables(render(exploding_rnn(), "markdown")):
        assert len(set(row_count)) == 1


def test_tables_keep_their_shape_under_hostile_names():
    for row_count in _tables(render(hostile(), "markdown")):
        assert len(set(row_count)) == 1


def _tables(text: str):
    """Cells per row of every table."""
    counts: list[int] = []
    for token in tokens(text):
        if token.type == "table_open":
            rows: list[int] = []
        elif token.type == "tr_open":
            counts = [0]
        elif token.type in ("td_open", "th_open"):
            counts[0] += 1
        elif token.type == "tr_close":
            rows.append(counts[0])
        elif token.type == "table_close":
            yield rows
