"""The document's declaration, part 3: replay and experiments, findings, causes, the verdict."""

from __future__ import annotations

from ckptdoctor.model import Cause, Grade, Group, Phase, ReplayStatus, Severity, Status
from ckptdoctor.report.document.kinds import (
    FLAG,
    INTEGER,
    REAL,
    TEXT,
    Choice,
    Field,
    List,
    Optional,
    RealOrText,
    Record,
    Table,
    plain,
)

# --- replay --------------------------------------------------------------------------------------------------------

GLIMPSE = Record(
    "tensor",
    "A tensor seen during replay, summed up.",
    (
        plain("name", TEXT, "which"),
        plain("shape", List(INTEGER), "its shape"),
        plain("dtype", TEXT, "its dtype"),
        plain("nonfinite", INTEGER, "entries that are not finite"),
        plain("min", Optional(REAL), "smallest finite entry"),
        plain("max", Optional(REAL), "largest finite entry"),
        plain("mean", Optional(REAL), "mean of the finite entries"),
        plain("std", Optional(REAL), "standard deviation of the finite entries"),
    ),
)

LINK = Record(
    "chain_link",
    "One station on the way of a non-finite value from its origin to the weights.",
    (
        plain("phase", Choice.of(Phase), "part of the training step"),
        plain("layer", Optional(TEXT), "layer"),
        plain("what", TEXT, "which tensor"),
        plain("nonfinite", INTEGER, "entries that are not finite"),
        plain("size", INTEGER, "entries"),
        plain("min", Optional(REAL), "smallest finite entry"),
        plain("max", Optional(REAL), "largest finite entry"),
    ),
)

FIRST_BAD = Record(
    "first_bad",
    "The first place in a training step that went non-finite.",
    (
        plain("phase", Choice.of(Phase), "part of the training step"),
        plain("layer", Optional(TEXT), "layer"),
        plain("op", Optional(TEXT), "TensorFlow's op type"),
        plain("variable", Optional(TEXT), "variable"),
        plain("step", INTEGER, "replayed steps before this one"),
        plain("optimizer_step", Optional(INTEGER), "the optimizer's iteration count"),
        plain("batch", Optional(INTEGER), "index of the recorded batch"),
        plain("rows", List(INTEGER), "rows of that batch that caused it; empty for all or unknown"),
        plain("features", List(INTEGER), "offending indices along the input's last axis"),
        plain("first_of_kind", Optional(TEXT), "first layer upstream with the same growing activation"),
        plain("kind", TEXT, "nan or inf"),
        plain("message", TEXT, "in words"),
        plain("operands", List(GLIMPSE), "the op's inputs"),
        plain("chain", List(LINK), "from there to the weights"),
    ),
)

EXPERIMENT = Record(
    "experiment",
    "The same state and batches, run again with one change.",
    (
        plain("key", TEXT, "stable name"),
        plain("change", TEXT, "for people"),
        plain("cause", Choice.of(Cause), "what it speaks for when it works"),
        plain("code", TEXT, "the line to write"),
        plain("removes_failure", Optional(FLAG), "null where that could not be decided"),
        plain("learns", Optional(FLAG), "whether the model then learns"),
        plain("steps_survived", INTEGER, "finite steps"),
        plain("steps", INTEGER, "steps tried"),
        plain("loss_before", Optional(REAL), "loss at the first step"),
        plain("loss_after", Optional(REAL), "loss at the last step"),
        plain("accuracy_after", Optional(REAL), "accuracy at the last step"),
        plain("losses", List(REAL), "loss per step, at most 200 points"),
        plain("layer", Optional(TEXT), "the layer that was changed"),
        plain("start", TEXT, "kind of the start state"),
        plain("score", Optional(REAL), "skill of the end state: 1 is perfect, 0 is a constant prediction"),
        plain("baseline_score", Optional(REAL), "the same of the unchanged run"),
        plain("held_out", Optional(REAL), "the score on rows that were not trained on"),
        plain("note", TEXT, "remark"),
    ),
)

STEP = Record(
    "step",
    "One replayed training step.",
    (
        plain("step", INTEGER, "from 0"),
        plain("batch", INTEGER, "recorded batch"),
        plain("loss", REAL, "loss"),
        plain("accuracy", Optional(REAL), "accuracy"),
        plain("gradient_norm", REAL, "norm of all gradients"),
        plain("layer_gradient_norms", List(REAL), "in the order of layer_names"),
        plain("layer_update_ratios", List(REAL), "in the order of layer_names"),
        plain("sharpness", Optional(REAL), "curvature along the gradient"),
        plain("loss_scale", Optional(REAL), "dynamic loss scale"),
        plain("weight_norm", Optional(REAL), "norm of all trainable weights before the update"),
        plain("learning_rate", Optional(REAL), "in force"),
    ),
)

ACTIVITY = Record(
    "activity",
    "One layer's output over one recorded batch.",
    (
        plain("layer", TEXT, "layer"),
        Field("class", TEXT, "Keras class", lambda a: a.class_name),
        plain("activation", Optional(TEXT), "its activation"),
        plain("output", GLIMPSE, "its output"),
        plain("dead_fraction", Optional(REAL), "share of units that are 0 for every row"),
        plain("saturated_fraction", Optional(REAL), "share of entries in the flat part of the activation"),
        plain("row_std", Optional(REAL), "standard deviation over rows; 0 means that the input is ignored"),
        plain("pre_min", Optional(REAL), "smallest input of the activation"),
        plain("pre_max", Optional(REAL), "largest input of the activation"),
        plain("gradient_rms", Optional(REAL), "rms of the gradient that flows into it"),
    ),
)

START = Record(
    "start",
    "What replay started from.",
    (
        plain("checkpoint", Optional(TEXT), "path; null for fresh weights"),
        plain("kind", TEXT, "last_healthy, healed or fresh"),
        plain("seed", Optional(INTEGER), "for fresh and healed"),
        plain("healed", List(TEXT), "tensors that were drawn again"),
        plain("slots_restored", FLAG, "whether the optimizer's state was restored"),
        plain("loss", TEXT, "how the loss was obtained"),
    ),
)

SKILL = Record(
    "skill",
    "Predictions against the best constant prediction, on recorded rows.",
    (
        plain("score", Optional(REAL), "1 is perfect, 0 is a constant, negative is worse"),
        plain("held_out", Optional(REAL), "the same over rows that were not trained on"),
        plain("accuracy", Optional(REAL), "of classes"),
        plain("majority", Optional(REAL), "accuracy of always naming the most frequent class"),
        plain("loss", Optional(REAL), "the run's own loss"),
        plain("trivial_loss", Optional(REAL), "the loss of the best constant"),
        plain("prediction_std", Optional(REAL), "how much predictions differ between rows"),
        plain("target_std", Optional(REAL), "the same of the targets"),
        plain("rank_correlation", Optional(REAL), "how far predictions order the rows as the targets do, 0 to 1"),
        plain(
            "signed_rank_correlation", Optional(REAL), "the same with its sign: below 0 they run against the targets"
        ),
        plain("outputs", Optional(INTEGER), "numbers a row that have such a correlation"),
    ),
)

BASELINE = Record(
    "baseline",
    "The unchanged run, repeated from where the experiments start.",
    (
        plain("start", TEXT, "kind of the start state"),
        plain("checkpoint", Optional(TEXT), "its path; null for fresh weights"),
        plain("steps", INTEGER, "finite steps"),
        plain("failed", FLAG, "whether a non-finite value came up"),
        plain("losses", List(REAL), "loss per step"),
        plain("progress", Optional(REAL), "share of the way from the first loss to that of the best constant"),
        plain("before", Optional(SKILL), "at the start"),
        plain("after", Optional(SKILL), "at the end"),
    ),
)

REPEAT = Record(
    "repeat",
    "The steps that the flight recorder kept, taken once more.",
    (
        plain("outcome", Choice(("same step", "other step", "finite", "not used")), "where it failed now"),
        plain("reason", TEXT, "why it was not used"),
        plain("first_step", Optional(INTEGER), "first training step of the recording"),
        plain("last_step", Optional(INTEGER), "its last one"),
        plain("failed_step", Optional(INTEGER), "the training step that failed now"),
        plain("compared", INTEGER, "finite steps whose loss was compared with the recorded one"),
        plain("equal", INTEGER, "how many of them were equal to the last bit"),
        plain("difference", Optional(REAL), "largest relative difference between the two"),
        plain("seeds", INTEGER, "random generators whose state was put back"),
        plain("variables", List(TEXT), "non-finite weights after the failing step, at most 64"),
        plain("variables_agree", Optional(FLAG), "whether they are the recorded ones"),
        plain("honoured", List(TEXT), "what of the training was repeated exactly"),
        plain("not_honoured", List(TEXT), "what was not"),
    ),
)

LEFT_OUT = Record(
    "left_out",
    "A part of the user's own whose code is not at hand.",
    (
        plain("kind", TEXT, "`regularizer`, `constraint` or `initializer`"),
        plain("name", TEXT, "of the function or class"),
        plain("layer", TEXT, "whose it is"),
    ),
)

REPLAY = Record(
    "replay",
    "The replay of the last batches.",
    (
        plain("status", Choice.of(ReplayStatus), "how far it came"),
        plain("reason", TEXT, "why not further"),
        plain("device", TEXT, "where it ran"),
        Field("from_checkpoint", Optional(TEXT), "where it started", lambda r: r.start.checkpoint if r.start else None),
        plain("start", Optional(START), "what it started from"),
        plain("mode", TEXT, "how the failing step was found"),
        plain("disagreement", TEXT, "where two ways of running it disagree"),
        plain("environment", Table(TEXT), "versions and settings"),
        plain("steps", INTEGER, "replayed steps"),
        plain("first_bad", Optional(FIRST_BAD), "the first non-finite place"),
        plain("layer_names", List(TEXT), "order of the lists per layer"),
        plain("records", List(STEP), "per step, at most 500"),
        plain("activity", List(ACTIVITY), "layers at the start"),
        plain("activity_end", List(ACTIVITY), "layers at the last finite state"),
        plain("initial_loss", Optional(REAL), "loss before the first step"),
        plain("prediction_std", Optional(REAL), "how much predictions differ between rows"),
        plain("target_std", Optional(REAL), "the same of the targets"),
        plain("repeat", Optional(REPEAT), "how the flight recorder's steps were repeated; null without a recording"),
        plain("learns", Optional(FLAG), "whether the unchanged run learns"),
        plain("skill", Optional(SKILL), "of the run's recorded end state"),
        plain("baseline", Optional(BASELINE), "the unchanged run, repeated for comparison"),
        plain("suspected", Optional(FIRST_BAD), "a failure seen only under the usual formula for a custom loss"),
        plain("custom_loss", TEXT, "the run's loss where a substitute was used for it"),
        plain("left_out", List(LEFT_OUT), "parts of the user's own that the rebuilt model lacks"),
        plain("one_element_norms", List(TEXT), "normalisations that took their mean over one element"),
        plain("not_restored", List(TEXT), "variables that the checkpoint did not fill"),
        plain("refused", List(TEXT), "why the configuration was not rebuilt without trust"),
        Field(
            "label_range",
            Optional(List(INTEGER)),
            "[lowest, highest, classes] of class indices outside the head",
            lambda r: r.label_range,
        ),
        Field("notes", List(TEXT), "remarks", lambda r: r.findings_notes),
        plain("experiments", List(EXPERIMENT), "what was tried"),
        Field(
            "skipped_experiments",
            List(
                Record(
                    "skipped_experiment",
                    "An experiment that was not run.",
                    (
                        Field("change", TEXT, "what it would have been", lambda pair: pair[0]),
                        Field("reason", TEXT, "why it was not run", lambda pair: pair[1]),
                    ),
                )
            ),
            "what was not tried",
            lambda r: r.skipped_experiments,
        ),
        plain("seconds_startup", REAL, "start of TensorFlow and rebuild"),
        plain("seconds_reproduce", REAL, "search for the failing step"),
        plain("seconds_closeup", REAL, "close look at the failing step"),
        plain("seconds_eager_step", REAL, "one eager step, for comparison"),
        plain("seconds", REAL, "all"),
    ),
)

# --- findings and causes -------------------------------------------------------------------------------------------

FINDING = Record(
    "finding",
    "One thing that a rule found.",
    (
        plain("id", TEXT, "code and running number; the anchor in reports"),
        plain("rule", TEXT, "code"),
        plain("severity", Choice.of(Severity), "by itself, whatever its cause"),
        plain("confidence", REAL, "how sure the rule is of the fact, 0 to 1"),
        plain("layer", Optional(TEXT), "layer"),
        plain("variable", Optional(TEXT), "variable"),
        plain("epoch", Optional(INTEGER), "epoch"),
        plain("step", Optional(INTEGER), "step"),
        plain("message", TEXT, "one or two sentences"),
        plain("measured", Optional(RealOrText()), "what was judged"),
        plain("threshold", Optional(RealOrText()), "against what"),
        plain("unit", Optional(TEXT), "unit of both"),
        Field(
            "votes",
            List(
                Record(
                    "vote",
                    "What a finding adds to a cause's log-odds.",
                    (
                        plain("cause", Choice.of(Cause), "which cause"),
                        plain("weight", REAL, "positive speaks for it"),
                        plain("reason", TEXT, "why"),
                    ),
                )
            ),
            "for and against causes",
            lambda f: f.votes,
        ),
    ),
)

SKIPPED = Record("skipped", "A rule that was not run.", (plain("rule", TEXT, "code"), plain("reason", TEXT, "why not")))
FAILURE = Record(
    "failure", "A rule that crashed.", (plain("rule", TEXT, "code"), plain("error", TEXT, "what happened"))
)

FIX = Record(
    "fix",
    "What to do about a cause, for this model.",
    (
        plain("text", TEXT, "in words"),
        plain("code", TEXT, "to copy; may be empty"),
        plain("tested", FLAG, "an experiment removed the failure with it"),
        plain("watch", TEXT, "what to watch when continuing"),
    ),
)

CONTRIBUTION = Record(
    "contribution",
    "One term of a cause's sum.",
    (
        Field("finding", Optional(TEXT), "id of the finding; null for the prior", lambda c: c.finding_id),
        plain("weight", REAL, "log-odds"),
        plain("reason", TEXT, "why"),
    ),
)

CAUSE = Record(
    "cause",
    "One cause of the ranking.",
    (
        plain("cause", Choice.of(Cause), "which"),
        Field("group", Choice.of(Group), "the word people use for it", lambda c: c.cause.group),
        plain("confidence", REAL, "calibrated, 0 to 1"),
        plain("grade", Choice.of(Grade), "how it was established"),
        plain("log_odds", REAL, "sum of the contributions"),
        Field("for", List(TEXT), "ids of the findings that speak for it", lambda c: c.supporting),
        Field("against", List(TEXT), "ids of the findings that speak against it", lambda c: c.opposing),
        plain("contributions", List(CONTRIBUTION), "the terms of the sum"),
        plain("fix", FIX, "what to do"),
    ),
)

ORIGIN = Record(
    "origin",
    "Where it broke; null where that is not known.",
    (
        plain("layer", Optional(TEXT), "layer"),
        plain("variable", Optional(TEXT), "variable"),
        plain("phase", Optional(Choice.of(Phase)), "part of the training step"),
        plain("op", Optional(TEXT), "TensorFlow's op type"),
        plain("epoch", Optional(INTEGER), "epoch, counted from 0"),
        plain("step", Optional(INTEGER), "optimizer step"),
        plain("batch", Optional(INTEGER), "recorded batch"),
        plain("rows", List(INTEGER), "rows of that batch"),
        plain("how", TEXT, "how this was established"),
    ),
)

VERDICT = Record(
    "verdict",
    "The answer.",
    (
        plain("status", Choice.of(Status), "sick, healthy or unreadable"),
        plain("cause", Choice.of(Cause), "why"),
        plain("group", Choice.of(Group), "the word people use for it"),
        plain("grade", Choice.of(Grade), "how it was established"),
        plain("confidence", REAL, "calibrated, 0 to 1"),
        plain("headline", TEXT, "one sentence"),
        plain("next_step", TEXT, "what to do now"),
    ),
)
