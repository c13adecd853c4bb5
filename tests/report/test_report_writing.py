"""Reports on disk: whole or not at all, under a harmless name."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import HOSTILE, hostile, nan_feature

from ckptdoctor.report.escape import file_name
from ckptdoctor.report.writing import OutputError, default_name, format_for, write_atomically


def test_the_page_is_named_after_the_run():
    assert default_name(nan_feature()) == "nan_feature.ckptdoctor.html"


def test_a_hostile_name_becomes_a_harmless_one():
    assert default_name(hostile()) == "img_src_x_onerror_alert_1_0_title_.keras.ckptdoctor.html"


@given(
    st.text()
    | st.sampled_from([*HOSTILE, "..", ".", "-rf", "con", "NUL.txt", "a/../../etc/passwd", "\\\\server\\x", "~root"])
)
def test_a_file_name_is_one_plain_component(text):
    name = file_name(text)
    assert name
    assert name not in (".", "..")
    assert not set(name) & set("/\\:\0\n\r\x1b<>|*?\"'`$;& ")
    assert not name.startswith((".", "-", "~"))
    assert len(name.encode()) <= 121
    assert name.split(".")[0].lower() not in ("con", "nul", "aux")


def test_it_writes_and_replaces(tmp_path):
    target = tmp_path / "report.html"
    for text in ("first\n", "second ✓\n"):
        write_atomically(target, text)
        assert text == target.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    target = write_atomically(tmp_path / "new", "x")
    assert stat.S_IMODE(usual.stat().st_mode) == stat.S_IMODE(target.stat().st_mode)
    target.chmod(0o600)
    write_atomically(target, "y")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "report.html").symlink_to(victim)
    write_atomically(tmp_path / "report.html", "x")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir() or p, "is a directory; name a file inside it"),
        (lambda p: p / "deeper" / "x.html", "does not exist; make it"),
        (lambda p: os.mkfifo(p) or p, "is not a regular file"),
    ],
    ids=["directory", "no such directory", "fifo"],
)
def test_targets_that_cannot_be_written_are_refused_with_a_remedy(tmp_path, make, words):
    with pytest.raises(OutputError, match=words):
        write_atomically(make(tmp_path / "target"), "x")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "half a report \ud800")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_device_is_refused():
    with pytest.raises(OutputError, match="not a regular file"):
        write_atomically(os.devnull, "x")


def test_a_suffix_implies_a_format():
    assert [format_for(f"x.{suffix}") for suffix in ("html", "JSON", "md", "xml", "txt", "dat")] == [
        "html",
        "json",
        "markdown",
        "junit",
        "text",
        None,
    ]
