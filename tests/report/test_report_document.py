"""The JSON document: strict, described by a committed schema, with a reason for everything that is null."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import ALL, NAN, hostile, large, nan_feature, nothing_known, unreadable

from ckptdoctor.model import Missing
from ckptdoctor.report import render
from ckptdoctor.report.document import DOCUMENT, document, schema
from ckptdoctor.report.document.kinds import Anything, Gaps, Real, Record
from ckptdoctor.report.json import dumps
from ckptdoctor.report.schema import schema_text

COMMITTED = Path(__file__).parents[2] / "docs" / "schema" / "report-1.0.json"

# The document as the design fixes it: section → members. Members may be added, never taken away within 1.x.
DESIGN = {
    "tool": ["name", "version"],
    "subject": ["path", "kind", "format", "size_bytes", "keras_version", "saved_at", "layers", "parameters"],
    "verdict": ["status", "cause", "group", "grade", "confidence", "headline", "next_step"],
    "causes": ["cause", "group", "confidence", "grade", "for", "against", "fix"],
    "origin": ["layer", "variable", "phase", "op", "epoch", "step", "batch", "rows", "how"],
    "layers": ["name", "class", "path", "trainable", "variables"],
    "optimizer": ["class", "learning_rate", "iterations", "slots"],
    "timeline": ["checkpoints", "last_healthy", "first_bad", "resume_from"],
    "log": ["source", "metrics", "first_nonfinite"],
    "batches": ["source", "count", "inputs", "targets"],
    "replay": ["status", "reason", "device", "from_checkpoint", "mode", "steps", "first_bad", "experiments"],
    "findings": [
        "id",
        "rule",
        "severity",
        "confidence",
        "layer",
        "variable",
        "message",
        "measured",
        "threshold",
        "unit",
    ],
    "skipped": ["rule", "reason"],
}


def parsed(report) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(render(report, "json"), parse_constant=refuse)


def test_the_committed_schema_is_the_generated_one():
    assert schema_text() == COMMITTED.read_text(encoding="utf-8")


def test_the_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", ALL)
def test_every_document_validates(name):
    jsonschema.Draft202012Validator(schema()).validate(parsed(ALL[name]()))


def test_a_wrong_document_does_not_validate():
    wrong = parsed(nan_feature())
    wrong["verdict"]["confidence"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(wrong)


@pytest.mark.parametrize("section", DESIGN)
def test_the_sections_have_the_members_of_the_design(section):
    value = parsed(nan_feature())[section]
    found = value[0] if isinstance(value, list) else value
    assert [name for name in DESIGN[section] if name not in found] == []


def test_failures_name_the_rule_and_the_error():
    assert parsed(nothing_known())["failures"] == [{"rule": "CKD103", "error": "ZeroDivisionError: division by zero"}]


def test_the_document_is_ascii_and_free_of_control_characters():
    text = render(hostile(), "json")
    assert text.isascii()
    assert {"\n"} == {c for c in text if not c.isprintable()}


def test_nonfinite_numbers_are_strings():
    replay = parsed(nan_feature())["replay"]
    assert replay["records"][2]["loss"] == "NaN"
    assert [Real().encode(v, "", Gaps()) for v in (NAN, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]


@given(
    st.recursive(
        st.none() | st.floats() | st.text() | st.integers(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_value_of_a_strangers_becomes_strict_json(value):
    text = dumps(Anything().encode(value, "", Gaps()))
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_the_layout_of_the_text_changes_nothing(value):
    assert json.loads(dumps(value)) == value


def test_file_names_that_are_no_utf8_are_shown_by_their_bytes():
    report = nan_feature()
    files = dataclasses.replace(report.evidence.files, path="run\udcff/x")
    report = dataclasses.replace(report, evidence=dataclasses.replace(report.evidence, files=files))
    assert parsed(report)["subject"]["path"] == "run\\xff/x"


@pytest.mark.parametrize("part", ["model", "optimizer", "timeline", "log", "batches", "replay"])
def test_what_is_missing_is_null_with_its_reason(part):
    found = parsed(nothing_known())
    assert found[part] is None
    assert [gap for gap in found["not_checked"] if gap["part"] == part and gap["reason"]]


def test_every_null_that_was_missing_has_a_reason():
    found = parsed(unreadable())
    reasons = {gap["part"] for gap in found["not_checked"]}
    assert {"subject.format", "subject.size_bytes", "subject.keras_version"} <= reasons


def test_gaps_inside_lists_do_not_flood_the_reasons():
    gaps = Gaps()
    DOCUMENT.encode(large(200), "", gaps)
    assert len(gaps.found) < 20


def test_the_timeline_names_checkpoints_by_path():
    timeline = parsed(nan_feature())["timeline"]
    paths = [point["path"] for point in timeline["checkpoints"]]
    assert (paths[0], paths[1], paths[0]) == (timeline["last_healthy"], timeline["first_bad"], timeline["resume_from"])


def test_a_run_and_a_checkpoint_are_told_apart():
    assert (
        parsed(nan_feature())["subject"]["kind"],
        parsed(nothing_known())["subject"]["kind"],
    ) == ("run", "checkpoint")


def test_fields_of_the_vocabulary_are_in_the_document():
    """A field added to a part of the evidence must be added to the document, or be named here with a reason."""
    left_out = {
        "Finding.data",  # values for renderers, not measurements
        "ArrayStats.kind",  # told by the list it stands in
        "ArrayStats.integral",  # told by `classes`
        "ArrayStats.row_sums_to_one",  # a hint for rules
        "Series.name",  # the key
        "Series.first_nonfinite",  # of all series together, as `first_nonfinite` of the log
        "TrainingLog.series",  # `metrics`
        "TrainingLog.terminated",  # `terminated_at_batch`
        "Timeline.points",  # `checkpoints`
        "TimelinePoint.census",  # the census of the verdict's checkpoint is in `layers`
        "Replay.findings_notes",  # `notes`
        "LayerActivity.class_name",  # `class`
        "OptimizerState.class_name",  # `class`
        "Contribution.finding_id",  # `finding`
    }
    missing = {f"{kind}.{name}" for kind, name in _declared() - _documented()}
    assert missing <= left_out, f"not in the document: {sorted(missing - left_out)}"


def _declared() -> set[tuple[str, str]]:
    from ckptdoctor import model

    names = (
        "Finding Vote RankedCause Contribution Fix Origin Verdict Replay Experiment ChainLink NonfinitePoint StepRecord LayerActivity "
        "StartState TensorGlimpse Skill Baseline Timeline TimelinePoint Growth TrainingLog Series Batches ArrayStats FeatureStats "
        "Association Fingerprint Pattern OptimizerState GradientScale"
    )
    return {(name, f.name) for name in names.split() for f in dataclasses.fields(getattr(model, name))}


RECORDS = {
    "Finding": "finding", "Vote": "vote", "RankedCause": "cause", "Contribution": "contribution", "Fix": "fix", "Origin": "origin",
    "Verdict": "verdict", "Replay": "replay", "Experiment": "experiment", "ChainLink": "chain_link", "NonfinitePoint": "first_bad",
    "StepRecord": "step", "LayerActivity": "activity", "StartState": "start", "TensorGlimpse": "tensor", "Skill": "skill",
    "Baseline": "baseline", "Timeline": "timeline", "TimelinePoint": "timeline_checkpoint", "Growth": "growth", "TrainingLog": "log",
    "Series": "series", "Batches": "batches", "ArrayStats": "array", "FeatureStats": "feature", "Association": "association",
    "Fingerprint": "fingerprint", "Pattern": "pattern", "OptimizerState": "optimizer", "GradientScale": "gradient",
}  # fmt: skip


def _documented() -> set[tuple[str, str]]:
    definitions = schema()["$defs"]
    return {(kind, name) for kind, record in RECORDS.items() for name in definitions[record]["properties"]}


def test_a_record_refuses_a_value_of_the_wrong_kind():
    report = nan_feature()
    wrong = dataclasses.replace(report, tool_version=7)
    with pytest.raises(TypeError, match=r"tool\.version: expected text"):
        document(wrong)


def test_records_are_declared_once():
    titles: dict[str, Record] = {}

    def walk(kind) -> None:
        if isinstance(kind, Record):
            assert titles.setdefault(kind.title, kind) is kind
            for field in kind.fields:
                walk(field.kind)
        elif hasattr(kind, "kind"):
            walk(kind.kind)

    walk(DOCUMENT)
    assert len(titles) > 30


def test_missing_is_falsy_so_that_no_renderer_mistakes_it():
    assert not Missing("why")
