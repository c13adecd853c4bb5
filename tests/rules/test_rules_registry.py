"""What holds for every rule."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
from making import evidence

from ckptdoctor.model import CkptDoctorError, Severity
from ckptdoctor.rules.registry import DOC_SECTIONS, Rule, all_rules, rule, run_rules

RULES = all_rules()
EVERY = pytest.mark.parametrize("checked", RULES, ids=[r.code for r in RULES])


def test_codes_and_names_are_unique():
    assert len({r.code for r in RULES}) == len(RULES) == len({r.name for r in RULES})


def test_every_rule_has_a_row():
    families = {path.stem for path in Path(__file__).parent.glob("test_rules_*.py")} - {Path(__file__).stem}
    tested = {row.code for family in families for row in importlib.import_module(family).ROWS}
    assert {r.code for r in RULES} == tested


@EVERY
def test_every_section_of_the_doc_says_something(checked: Rule):
    for title in DOC_SECTIONS:
        assert len(checked.section(title)) > 10, title


@EVERY
def test_every_threshold_names_its_source_and_unit(checked: Rule):
    for name, threshold in checked.thresholds.items():
        assert threshold.source, name
        assert threshold.unit, name
        assert math.isfinite(threshold.value), name


@EVERY
def test_without_evidence_a_rule_is_skipped_with_a_reason_and_finds_nothing(checked: Rule):
    outcome = run_rules(evidence(), select=[checked.code])
    assert () == outcome.findings
    assert () == outcome.failures
    skipped = {s.rule: s.reason for s in outcome.skipped}
    if checked.needs:
        assert skipped[checked.code].startswith("needs ")


def test_a_crashed_rule_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch):
    victim = RULES[0]

    def crash(*_: object):
        raise ZeroDivisionError("on purpose")
        yield

    broken = Rule("CKD999", "broken", Severity.INFO, frozenset(), "0.1.0", victim.doc, crash)
    monkeypatch.setattr("ckptdoctor.rules.registry.all_rules", lambda: (*RULES, broken))
    outcome = run_rules(evidence())
    assert [("CKD999", "ZeroDivisionError: on purpose")] == [(f.rule, f.error) for f in outcome.failures]


def test_a_duplicate_code_is_refused():
    with pytest.raises(ValueError, match="registered twice"):
        rule(code=RULES[0].code, name="other", severity=Severity.INFO, needs=(), since="0.1.0", doc=RULES[0].doc)(
            lambda *_: iter(())
        )


def test_a_doc_without_a_section_is_refused():
    with pytest.raises(ValueError, match="How to fix"):
        rule(
            code="CKD998",
            name="short",
            severity=Severity.INFO,
            needs=(),
            since="0.1.0",
            doc=RULES[0].doc.replace("## How to fix", "## Advice"),
        )


@pytest.mark.parametrize(
    "words", [{"select": ["CKD9999"]}, {"ignore": ["nothing"]}, {"overrides": {"CKD111.nothing": 1.0}}]
)
def test_a_selection_that_names_nothing_is_refused(words: dict):
    with pytest.raises(CkptDoctorError):
        run_rules(evidence(), **words)
