"""`explain` and `rules` say what the registry says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ckptdoctor.causes import CAUSE_DOCS
from ckptdoctor.cli import cli
from ckptdoctor.model import Cause
from ckptdoctor.rules.registry import DOC_SECTIONS, all_rules


def shown(*arguments: str) -> str:
    return CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False).stdout


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.code)
def test_every_rule_can_be_explained_by_code_and_by_name(rule):
    text = shown("explain", rule.code)
    assert text == shown("explain", rule.code.lower()) == shown("explain", rule.name)
    assert [f"## {title}" for title in DOC_SECTIONS if f"## {title}" not in text] == []
    for name, threshold in rule.thresholds.items():
        assert f"`{rule.code}.{name}` = {threshold.value:g}" in text
        assert threshold.source in text


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_can_be_explained(cause):
    text = shown("explain", cause.value)
    assert CAUSE_DOCS[cause].title in text
    assert text == shown("explain", cause.value.replace("_", "-").upper())


def test_rules_lists_every_rule():
    text = shown("rules")
    assert [r.code for r in all_rules()] == [row[:6] for row in text.split("\n") if row.startswith("CKD")]


def test_rules_as_json():
    rows = json.loads(shown("rules", "--format", "json"))
    assert [r.code for r in all_rules()] == [row["code"] for row in rows]
    assert {"code", "name", "severity", "needs", "since", "summary", "thresholds"} == set(rows[0])
