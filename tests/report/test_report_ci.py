"""JUnit and workflow annotations: valid, complete, and closed to what a file name could smuggle in."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import ALL, exploding_rnn, healthy, hostile, large, nan_feature, nothing_known, unreadable

from ckptdoctor.report import render
from ckptdoctor.report.escape import annotation_message, annotation_property
from ckptdoctor.rules.registry import all_rules


def suite(report) -> ET.Element:
    root = ET.fromstring(render(report, "junit"))
    assert root.tag == "testsuites"
    return root[0]


@pytest.mark.parametrize("name", ALL)
def test_junit_counts_what_it_holds(name):
    cases = suite(ALL[name]())
    for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(cases.get(attribute)) == len(cases.findall(f"testcase/{tag}"))
    assert int(cases.get("tests")) == len(cases.findall("testcase"))


def test_junit_has_a_case_for_every_rule():
    names = {case.get("name") for case in suite(healthy()).findall("testcase")}
    assert [r.code for r in all_rules() if f"{r.code} {r.name}" not in names] == []


def test_junit_fails_where_the_verdict_is_sick():
    verdict = suite(nan_feature()).find("testcase[@name='verdict']/failure")
    assert verdict is not None
    assert verdict.get("message").startswith("data_nonfinite (confirmed): Input feature 2")


def test_junit_has_no_failure_where_nothing_is_wrong():
    assert suite(healthy()).findall("testcase/failure") == []


def test_junit_calls_an_unreadable_file_an_error():
    assert suite(unreadable()).find("testcase[@name='verdict']/error").get("type") == "unreadable"


def test_junit_tells_skipped_and_crashed_rules_apart():
    cases = suite(nothing_known())
    assert "needs logs: no training log was found" in {s.get("message") for s in cases.findall("testcase/skipped")}
    assert [e.text for e in cases.findall("testcase/error")] == ["ZeroDivisionError: division by zero"]


def test_junit_shows_hostile_names_as_text():
    root = ET.fromstring(render(hostile(), "junit"))
    assert {"testsuites", "testsuite", "testcase", "failure", "error", "skipped", "system-out"} >= {
        e.tag for e in root.iter()
    }
    assert any("<script>alert(1)</script>" in (e.text or "") for e in root.iter())


@pytest.mark.parametrize("name", ALL)
def test_every_annotation_is_one_command(name):
    for row in render(ALL[name](), "github").rstrip("\n").split("\n"):
        kind, rest = row[2:].split(" title=", 1)
        assert kind in ("error", "warning", "notice")
        assert "::" in rest
        assert "," not in rest.split("::", 1)[0]


def test_the_verdict_is_the_first_annotation():
    assert render(exploding_rnn(), "github").startswith(
        "::error title=ckptdoctor%3A sick%2C exploding_gradients (confirmed)::rnn: "
    )


def test_annotations_are_few_enough_to_be_shown():
    assert render(large(400), "github").count("\n") == 50


def test_a_log_line_cannot_become_a_command():
    text = render(hostile(), "github")
    assert all(row.startswith(("::error", "::warning", "::notice")) for row in text.rstrip("\n").split("\n"))


@given(st.text())
def test_messages_and_properties_stay_on_one_line(text):
    for escaped in (annotation_message(text), annotation_property(text)):
        assert "\n" not in escaped
        assert "\r" not in escaped
    assert ":" not in annotation_property(text)
    assert "," not in annotation_property(text)
