"""CKD503: the pattern of experiments on a run that does not learn."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, OptimizerState, ReplayStatus, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.replay.outcomes import Outcome, Pattern, outcome
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.standstill_log import easy_for_simple_models

ALONE = 3.0  # vote of other initial weights where no other change makes it learn, rates among them; hand-chosen
OWN_CAUSE = ("output_activation", "safe_activation", "stable_loss", "scale_targets")  # the experiment itself knows it
WEIGHTS: dict[str, tuple[Cause, float]] = {
    "lr*": (Cause.LEARNING_RATE, 2.2),
    "lr/": (Cause.LEARNING_RATE, 2.0),
    "standardise_inputs": (Cause.DATA_SCALE, 2.5),
    "robust_inputs": (Cause.DATA_SCALE, 3.0),
    "output_activation": (Cause.ACTIVATION, 2.8),
    "stable_loss": (Cause.LOSS_FUNCTION, 2.2),
    "safe_activation": (Cause.ACTIVATION, 1.6),
    "reinitialise": (Cause.INITIALIZATION, 2.2),
    "shift_labels": (Cause.LABELS, 3.0),
    "scale_targets": (Cause.LABELS, 3.0),
    "optimizer_": (Cause.OPTIMIZER, 0.8),
    "clip_": (Cause.EXPLODING_GRADIENTS, 1.4),
    "add_normalisation": (Cause.ARCHITECTURE, 0.8),
    "float32": (Cause.MIXED_PRECISION, 3.0),
    "epsilon": (Cause.OPTIMIZER, 1.5),
    "loss_scaling": (Cause.MIXED_PRECISION, 1.5),
    "structure_": (Cause.ARCHITECTURE, 2.5),
    "layer_norm": (Cause.ARCHITECTURE, 2.5),
}


@rule(
    code="CKD503",
    name="experiments-on-standstill",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    For a finite run that does not learn: which single change makes it learn on the recorded batches.
    ## Why it matters
    Finite is not healed. A dead, saturated or vanishing run is told apart by the change that revives it: scaled inputs, another
    activation, other initial weights, another rate. If nothing does, inputs may not predict the targets at all.
    ## How to confirm
    Repeat the experiment with the code line in the report.
    ## How to fix
    Take the change that brings an unusual setting back to the usual.
    ## References
    Measured on re-created public failures.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    unmoved = isinstance(evidence.optimizer, OptimizerState) and evidence.optimizer.untouched_slots
    if replay.status is ReplayStatus.REPRODUCED or (standstill(evidence) is None and not unmoved):
        return
    if not replay.experiments and not (unmoved and replay.custom_loss):
        return
    if replay.learns_under_another_loss:
        yield _loss_was_it(replay.custom_loss)
        return
    pattern = Pattern(replay)
    healing = [e for e in replay.experiments if outcome(e) is Outcome.HEALS and e.learns]
    share = 1.0 if len(healing) <= 2 else 0.7  # several changes heal: each proves less
    cast: dict[Cause, tuple[float, str]] = {}
    for prefix, (cause, weight) in WEIGHTS.items():
        best = pattern.healing(prefix)
        if best is not None and best.learns:
            voted = best.cause if prefix in OWN_CAUSE else cause
            if weight * share > cast.get(voted, (0.0, ""))[0]:
                cast[voted] = (weight * share, f"{best.change} makes it learn")
        elif pattern.best(prefix) is Outcome.FINITE and cause not in cast:
            cast[cause] = (-0.8, "the change that would remove it does not make it learn")
    if pattern.heals("safe_activation") or pattern.heals("reinitialise"):
        cast[Cause.VANISHING_GRADIENTS] = (
            1.2 * share,
            "a hidden activation or initial scale that lets gradients through makes it learn",
        )
    if not healing and len(replay.experiments) >= 3:
        why = "nothing that was tried makes it learn"
        if easy_for_simple_models(evidence):
            cast[Cause.ARCHITECTURE] = (1.5, f"{why}, and simple models do")
        else:
            cast[Cause.LABELS] = (1.2, why)
    if len(healing) == 1 and healing[0].key.startswith("optimizer_"):
        cast[Cause.OPTIMIZER] = (2.0, f"only {healing[0].change} makes it learn")
    if len(healing) == 1 and healing[0].key == "reinitialise" and pattern.tried("lr*") and pattern.tried("lr/"):
        cast[Cause.INITIALIZATION] = (ALONE, "only other initial weights make it learn")
        cast[Cause.LEARNING_RATE] = (-1.0, "no rate that was tried makes it learn")
        if pattern.tried("safe_activation"):
            cast[Cause.ACTIVATION] = (-1.0, "another activation does not make it learn")
    proved = max(cast.items(), key=lambda item: item[1][0], default=None)
    text = (
        f"What makes it learn: {'; '.join(e.change for e in healing[:4])}."
        if healing
        else "None of the changes tried makes it learn."
    )
    alone = ("reinitialise",) if len(healing) == 1 else ()
    yield Finding(
        rule="CKD503",
        severity=Severity.INFO,
        message=text,
        layer=next(
            (e.layer for e in healing if e.layer and e.key.startswith(("structure", "layer_norm", "output", *alone))),
            None,
        ),
        measured=f"{len(healing)} of {len(replay.experiments)} experiments heal",
        votes=votes(*[(cause, weight, why) for cause, (weight, why) in cast.items()]),
        data={"confirms": proved[0].value} if proved is not None and proved[1][0] >= 1.5 and len(healing) <= 2 else {},
    )


def _loss_was_it(name: str) -> Finding:
    """The stand-in for a loss whose code is not at hand is an experiment too: nothing but the loss was changed."""
    return Finding(
        rule="CKD503",
        severity=Severity.INFO,
        message=f"With the usual loss for its head in place of its own loss {name} the same run learns.",
        measured="the unchanged run learns under another loss",
        votes=votes(
            (Cause.LOSS_FUNCTION, 3.0, f"only {name} was changed"),
            (Cause.LABELS, -1.0, "the same targets can be learned"),
            (Cause.ARCHITECTURE, -1.0, "the same model can learn"),
            (Cause.ACTIVATION, -1.5, "the same model can learn"),
        ),
        data={"confirms": Cause.LOSS_FUNCTION.value},
    )
