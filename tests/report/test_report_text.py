"""Terminal text: verdict first, no wider than asked, nothing in it that a terminal would obey."""

from __future__ import annotations

import re

import pytest
from gold import agrees_with_gold
from hypothesis import given
from hypothesis import strategies as st
from report_factories import ALL, exploding_rnn, healthy, hostile, large, nan_feature, nothing_known, unreadable

from ckptdoctor.report import render
from ckptdoctor.report.text import cells, chop, render_summary, wrap


@pytest.mark.parametrize("name", [n for n in ALL if n != "hostile"])
def test_gold(name):
    agrees_with_gold(f"{name}.txt", render(ALL[name](), "text", width=80))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", [*ALL, "large"])
def test_no_line_is_wider_than_asked(name, width):
    report = large(200) if name == "large" else ALL[name]()
    text = render(report, "text", width=width)
    assert [row for row in text.split("\n") if cells(row) > width] == []


def test_the_verdict_is_the_first_line():
    first = [render(make(), "text").split("\n")[0] for make in (nan_feature, healthy, unreadable, nothing_known)]
    assert first == [
        "SICK: NaN or infinity in the data (data_nonfinite)",
        "HEALTHY",
        "UNREADABLE",
        "SICK: cause unknown",
    ]


@pytest.mark.parametrize("make", [nan_feature, exploding_rnn, large])
def test_it_fits_a_screen_and_a_half(make):
    assert len(render(make(), "text", width=100).split("\n")) <= 60


def test_the_summary_fits_a_small_screen():
    assert len(render_summary(nan_feature(), width=80).split("\n")) <= 20


def test_it_is_plain_unless_colour_is_asked_for():
    assert "\x1b" not in render(nan_feature(), "text")


def test_colours_are_the_only_escapes_and_all_are_closed():
    text = render(nan_feature(), "text", color=True)
    codes = re.findall(r"\x1b\[([\d;]*)m", text)
    assert text.count("\x1b") == len(codes)
    assert all(after == "0" for after in codes[1::2])
    assert render(nan_feature(), "text") == re.sub(r"\x1b\[[\d;]*m", "", text)


def test_colour_changes_no_width():
    text = render(nan_feature(), "text", width=60, color=True)
    assert all(cells(row) <= 60 for row in re.sub(r"\x1b\[[\d;]*m", "", text).split("\n"))


def test_a_strangers_control_characters_are_visible_and_dead():
    text = render(hostile(), "text", width=80)
    assert {"\n"} >= {c for c in text if ord(c) < 32 or 0x7F <= ord(c) < 0xA0}
    assert "\\e[31mred\\e[0m\\x07" in text.replace("\n", "")
    assert "\u202e" not in text


def test_wide_characters_take_two_columns():
    assert cells("ab语") == 4
    assert chop("语语语", 5) == ["语语", "语"]


@given(st.text(max_size=200), st.integers(min_value=2, max_value=50))
def test_wrapping_keeps_the_words_and_the_width(text, width):
    rows = wrap(text, width)
    assert "".join(text.split()) == "".join("".join(rows).split())
    assert all(cells(row) <= width for row in rows)
