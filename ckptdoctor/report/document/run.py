"""The document's declaration, part 2: what the run left behind over time: timeline, log, batches, files."""

from __future__ import annotations

from typing import Any

from ckptdoctor.model import Missing, Report, Series, Status, Timeline, TrainingLog
from ckptdoctor.report.document.kinds import (
    FLAG,
    INTEGER,
    REAL,
    TEXT,
    Choice,
    Field,
    List,
    Optional,
    Record,
    Table,
    plain,
)

# --- timeline --------------------------------------------------------------------------------------------------

POINT = Record(
    "timeline_checkpoint",
    "One checkpoint of the run.",
    (
        plain("path", TEXT, "its path"),
        plain("epoch", Optional(INTEGER), "epoch, counted from 0"),
        plain("step", Optional(INTEGER), "optimizer steps taken"),
        plain("status", Choice.of(Status), "healthy, sick or unreadable"),
        plain("nonfinite", INTEGER, "non-finite entries in weights, statistics and optimizer state"),
        Field(
            "reason",
            Optional(TEXT),
            "why it could not be read",
            lambda p: p.census.reason if isinstance(p.census, Missing) else None,
        ),
    ),
)

GROWTH = Record(
    "growth",
    "A tensor's rms as an exponential of the axis, fitted over the healthy checkpoints.",
    (
        plain("path", TEXT, "address of the tensor"),
        plain("layer", Optional(TEXT), "its layer"),
        plain("variable", TEXT, "its name"),
        plain("doubling", REAL, "units of the axis per doubling; negative where it shrinks"),
        plain("r2", REAL, "goodness of the fit, 0 to 1"),
        plain("overflow_at", Optional(REAL), "value of the axis at which its dtype overflows"),
        plain("axis", TEXT, "epoch, step or checkpoint"),
        plain("first", REAL, "rms at the first healthy checkpoint"),
        plain("last", REAL, "rms at the last healthy checkpoint"),
    ),
)


def _path_at(index: int | None, timeline: Timeline) -> str | None:
    return None if index is None else timeline.points[index].path


DISPLACEMENT = Record(
    "displacement",
    "How far a weight went, entry by entry.",
    (
        plain("path", TEXT, "in the file"),
        plain("layer", Optional(TEXT), "layer"),
        plain("variable", TEXT, "variable"),
        plain("distance", REAL, "rms of the difference"),
        plain("size", REAL, "rms in the earlier checkpoint"),
    ),
)

TIMELINE = Record(
    "timeline",
    "The run's checkpoints in training order.",
    (
        Field("checkpoints", List(POINT), "in order", lambda t: t.points),
        plain("order", TEXT, "by what they were ordered"),
        Field("last_healthy", Optional(TEXT), "path", lambda t: _path_at(t.last_healthy, t)),
        Field("first_bad", Optional(TEXT), "path", lambda t: _path_at(t.first_bad, t)),
        Field(
            "resume_from",
            Optional(TEXT),
            "path of the last sound checkpoint; `verdict.next_step` says whether to continue from it",
            lambda t: _path_at(t.resume_from, t),
        ),
        plain("resume_reason", TEXT, "why, or why from none"),
        plain("growth", List(GROWTH), "steepest first"),
        plain("unmoved", List(TEXT), "trainable weights that never changed"),
        plain("displacement", List(DISPLACEMENT), "from the first healthy checkpoint to the last, in layer order"),
        plain("best_only_trap", FLAG, "the kept best checkpoint is sick and will never be overwritten"),
        plain("notes", List(TEXT), "remarks"),
    ),
)

# --- log -----------------------------------------------------------------------------------------------------------

SERIES = Record(
    "series",
    "One metric over time, downsampled; the counts and extremes are exact.",
    (
        plain("axis", TEXT, "what the steps count: epoch, step or batch"),
        plain("steps", List(REAL), "places of the values"),
        plain("values", List(REAL), "as many as steps"),
        plain("count", INTEGER, "points read"),
        plain("nonfinite", INTEGER, "how many of them were not finite"),
        plain("min", Optional(REAL), "smallest finite value"),
        plain("max", Optional(REAL), "largest finite value"),
    ),
)

FIRST_NONFINITE = Record(
    "first_nonfinite",
    "The first value of a log that is not finite.",
    (
        Field("metric", TEXT, "which metric", lambda s: s.name),
        Field("step", REAL, "where, on the metric's axis", lambda s: s.first_nonfinite[0]),
        Field("value", REAL, "what it was", lambda s: s.first_nonfinite[1]),
        Field("axis", TEXT, "what the step counts", lambda s: s.axis),
    ),
)


def first_nonfinite(log: TrainingLog) -> Series | None:
    """The series with the earliest non-finite value; of several at once the loss, else the first one logged.

    Series over epochs are compared with one another only, and likewise steps and batches; the loss's axis goes first.
    """
    bad = [s for s in log.series if s.first_nonfinite is not None]
    if not bad:
        return None
    axis = next((s.axis for s in bad if _is_loss(s)), bad[0].axis)
    return min((s for s in bad if s.axis == axis), key=lambda s: ((s.first_nonfinite or (0, 0))[0], not _is_loss(s)))


def _is_loss(series: Series) -> bool:
    return series.name in ("loss", "epoch_loss", "batch_loss", "train/loss", "train_loss")


LOG = Record(
    "log",
    "A training log.",
    (
        plain("source", TEXT, "its path"),
        plain("format", TEXT, "what wrote it"),
        Field("metrics", Table(SERIES), "by name", lambda log: {s.name: s for s in log.series}),
        Field("first_nonfinite", Optional(FIRST_NONFINITE), "the first value that is not finite", first_nonfinite),
        Field(
            "terminated_at_batch",
            Optional(INTEGER),
            "batch index of a TerminateOnNaN line",
            lambda log: log.terminated and log.terminated[1],
        ),
        plain("restarts", List(REAL), "where the log starts again"),
        plain("running_average", FLAG, "true where losses are running averages within an epoch"),
        plain("notes", List(TEXT), "what was skipped and why"),
    ),
)

# --- batches -----------------------------------------------------------------------------------------------------------

FEATURE = Record(
    "feature",
    "One index along the last axis, over all rows.",
    (
        plain("index", INTEGER, "from 0"),
        plain("nonfinite", INTEGER, "entries that are not finite"),
        plain("min", Optional(REAL), "smallest finite entry"),
        plain("max", Optional(REAL), "largest finite entry"),
        plain("mean", Optional(REAL), "mean of the finite entries"),
        plain("std", Optional(REAL), "standard deviation of the finite entries"),
        plain("outlier_z", Optional(REAL), "largest robust z-score"),
        plain("code", Optional(REAL), "a repeated value far outside all others, as for missing values"),
        plain("code_count", INTEGER, "how often it stands"),
        plain("common", Optional(REAL), "the most frequent value"),
        plain("common_share", REAL, "its share of the values that were looked at"),
    ),
)

ARRAY = Record(
    "array",
    "One array of the recorded batches.",
    (
        plain("name", TEXT, "as recorded"),
        plain("shape", List(INTEGER), "as stored, batches first"),
        plain("dtype", TEXT, "as stored"),
        plain("nonfinite", INTEGER, "entries that are not finite"),
        plain("nan", INTEGER, "entries that are NaN"),
        plain("posinf", INTEGER, "entries that are +Infinity"),
        plain("neginf", INTEGER, "entries that are -Infinity"),
        plain("min", Optional(REAL), "smallest finite entry"),
        plain("max", Optional(REAL), "largest finite entry"),
        plain("mean", Optional(REAL), "mean of the finite entries"),
        plain("std", Optional(REAL), "standard deviation of the finite entries"),
        plain("bad_rows", List(List(INTEGER)), "[batch, row] with a non-finite entry, at most 256"),
        plain("bad_row_count", INTEGER, "all of them"),
        plain("bad_features", List(INTEGER), "indices along the last axis with a non-finite entry, at most 256"),
        plain("constant_features", List(INTEGER), "features with one value throughout, at most 256"),
        plain("classes", List(List(REAL)), "[value, count] of whole-number data with few values"),
        plain("duplicate_rows", INTEGER, "rows that stand more than once"),
        plain("padding", Optional(REAL), "share of a row's last steps that are zero, median over rows"),
        plain("features", List(FEATURE), "per feature, at most 512"),
        plain("sampled", FLAG, "true where not everything was read"),
    ),
)

ASSOCIATION = Record(
    "association",
    "Does x predict y at all? Cross-validated, against the same with y permuted.",
    (
        plain("method", TEXT, "how it was measured"),
        plain("score", REAL, "share explained out of sample"),
        plain("chance", REAL, "mean score with y permuted"),
        plain("chance_std", REAL, "its standard deviation"),
        plain("by_number", FLAG, "class ids were taken as numbers, since nothing predicts them as classes"),
        plain("rows", INTEGER, "rows used"),
    ),
)

BATCHES = Record(
    "batches",
    "The last batches of the run.",
    (
        plain("source", TEXT, "path"),
        plain("count", INTEGER, "number of batches"),
        plain("steps", List(INTEGER), "optimizer step of each, where recorded"),
        plain("inputs", List(ARRAY), "inputs"),
        plain("targets", List(ARRAY), "targets"),
        plain("sample_weights", List(ARRAY), "sample weights"),
        plain("association", Optional(ASSOCIATION), "whether the inputs predict the targets"),
        plain("notes", List(TEXT), "remarks"),
    ),
)

# --- files -------------------------------------------------------------------------------------------------------------


def _pairs(title: str, doc: str, first: str, second: str) -> Record:
    return Record(
        title,
        doc,
        (Field(first, TEXT, first, lambda pair: pair[0]), Field(second, TEXT, second, lambda pair: pair[1])),
    )


# --- recorder --------------------------------------------------------------------------------------------------

RECORDER = Record(
    "recorder",
    "What the flight recorder wrote in recorder.json.",
    (
        plain("source", TEXT, "its path"),
        plain("status", TEXT, "running (the process was killed), failed, interrupted or finished"),
        plain("kind", TEXT, "what ended it: loss, weights, gradients, signal, exception, exit, or empty"),
        plain("text", TEXT, "the same in words"),
        plain("step", Optional(INTEGER), "training step it ended with"),
        plain("epoch", Optional(INTEGER), "its epoch, counted from 0"),
        plain("batch", Optional(INTEGER), "its batch within the epoch"),
        plain("loss", Optional(REAL), "its loss"),
        plain("variables", List(TEXT), "non-finite weights after it, at most 64"),
        plain("steps_taken", INTEGER, "training steps taken"),
        plain(
            "window",
            Optional(
                Record(
                    "recorded_window",
                    "What was kept to repeat the last steps.",
                    (
                        plain("checkpoint", TEXT, "state before the first of them"),
                        plain("batches", TEXT, "their batches"),
                        plain("first_step", INTEGER, "the first of them"),
                        plain("last_step", INTEGER, "the last of them"),
                    ),
                )
            ),
            "what was kept to repeat the last steps",
        ),
        plain("environment", Table(TEXT), "versions and devices of the training"),
        plain("problems", List(TEXT), "what could not be kept"),
    ),
)


def recorder_of(report: Report) -> Any:
    """What the recorder wrote; None, which is no gap, for a run without it."""
    return None if report.evidence.files.recorder is None else report.evidence.recorder


FILES = Record(
    "files",
    "What was found, used and ignored.",
    (
        Field("checkpoints", List(TEXT), "candidates", lambda r: r.evidence.files.checkpoints),
        Field("logs", List(TEXT), "logs", lambda r: r.evidence.files.logs),
        Field("batches", List(TEXT), "recorded batches", lambda r: r.evidence.files.batches),
        Field("recorder", Optional(TEXT), "the flight recorder's recorder.json", lambda r: r.evidence.files.recorder),
        Field(
            "ignored",
            List(_pairs("ignored_file", "A file that was not used.", "path", "reason")),
            "what else was there, and why it was not used",
            lambda r: [(f.path, f.reason) for f in r.evidence.files.ignored],
        ),
        Field(
            "unreadable",
            List(_pairs("unreadable_file", "A file that could not be opened.", "path", "error")),
            "what could not be opened, and why",
            lambda r: r.evidence.unreadable,
        ),
    ),
)


def main_log(report: Report) -> TrainingLog | Missing:
    """The most informative log."""
    logs = report.evidence.logs
    if isinstance(logs, Missing):
        return logs
    return logs[0] if logs else Missing("no training log was found")


def other_logs(report: Report) -> tuple[TrainingLog, ...]:
    """All logs but the first."""
    logs = report.evidence.logs
    return () if isinstance(logs, Missing) else logs[1:]
