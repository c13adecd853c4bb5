"""The JSON document: declared once, built from a report, described as a JSON schema.

Versions of the document:
    1.0  first version.
Added members bump the minor version; renamed or removed ones the major. Readers ignore members they do not know.
"""

from __future__ import annotations

from typing import Any

from ckptdoctor.model import Report
from ckptdoctor.report.document import judgement, run, tensors
from ckptdoctor.report.document.kinds import (
    REAL,
    TEXT,
    Anything,
    Choice,
    Definitions,
    Field,
    Gaps,
    List,
    Optional,
    Record,
    plain,
)

SCHEMA_VERSION = "1.0"
SCHEMA_ID = "urn:ckptdoctor:schema:report:1.0"

TOOL = Record(
    "tool",
    "What made this document.",
    (
        Field("name", Choice(("ckptdoctor",)), "always ckptdoctor", lambda _: "ckptdoctor"),
        Field("version", TEXT, "its version", lambda r: r.tool_version),
    ),
)

GAP = Record(
    "not_checked",
    "A part of this document that is null because the files do not hold it or it was not measured.",
    (
        Field("part", TEXT, "its place in this document", lambda gap: gap[0]),
        Field("reason", TEXT, "why", lambda gap: gap[1]),
    ),
)


def _evidence(name: str) -> Any:
    return lambda report: getattr(report.evidence, name)


DOCUMENT = Record(
    "report",
    "The post-mortem of a Keras training run. Numbers that are not finite are the strings NaN, Infinity and -Infinity.",
    (
        Field("schema_version", Choice((SCHEMA_VERSION,)), "version of this format", lambda _: SCHEMA_VERSION),
        Field("tool", TOOL, "what made this document", lambda r: r),
        Field("subject", tensors.SUBJECT, "what was inspected", lambda r: r),
        plain("verdict", judgement.VERDICT, "the answer"),
        Field("causes", List(judgement.CAUSE), "ranked, the likeliest first", lambda r: r.diagnosis.causes),
        Field("origin", judgement.ORIGIN, "where it broke", lambda r: r.diagnosis.origin),
        Field("model", Optional(tensors.MODEL), "the model's configuration", _evidence("spec")),
        Field("layers", List(tensors.LAYER), "in the model's order", tensors.layers_of),
        Field("fingerprint", Optional(tensors.FINGERPRINT), "where non-finite entries stand", _evidence("fingerprint")),
        Field("optimizer", Optional(tensors.OPTIMIZER), "the optimizer's state", tensors.optimizer_of),
        Field("timeline", Optional(run.TIMELINE), "the run's checkpoints", _evidence("timeline")),
        Field("log", Optional(run.LOG), "the most informative log", run.main_log),
        Field("other_logs", List(run.LOG), "the other logs", run.other_logs),
        Field("batches", Optional(run.BATCHES), "the last batches", _evidence("batches")),
        Field("recorder", Optional(run.RECORDER), "what the flight recorder wrote", run.recorder_of),
        Field("replay", Optional(judgement.REPLAY), "the replay of the last batches", _evidence("replay")),
        plain("findings", List(judgement.FINDING), "what the rules found"),
        plain("skipped", List(judgement.SKIPPED), "rules that were not run"),
        plain("failures", List(judgement.FAILURE), "rules that crashed"),
        Field("files", run.FILES, "what was found, used and ignored", lambda r: r),
        plain("options", Anything(), "the options that matter for repeating the inspection"),
        plain("seconds", REAL, "wall time of the inspection"),
    ),
)


def document(report: Report) -> dict[str, Any]:
    """The report as the JSON document: dicts, lists, strings, finite numbers, booleans and None only."""
    gaps = Gaps()
    built: dict[str, Any] = DOCUMENT.encode(report, "", gaps)
    built["not_checked"] = List(GAP).encode(gaps.found, "not_checked", Gaps())
    return built


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the document, generated from its declaration."""
    definitions: Definitions = {}
    body = DOCUMENT.body(definitions)
    body["properties"]["not_checked"] = {
        "description": "what is null above because it is missing, and why",
        **List(GAP).schema(definitions),
    }
    body["required"].append("not_checked")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": f"ckptdoctor report {SCHEMA_VERSION}",
        **body,
        "$defs": definitions,
    }
