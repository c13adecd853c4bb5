"""CKD502: the pattern of experiments on a run that went non-finite."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ReplayStatus, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.replay.outcomes import Outcome, Pattern
from ckptdoctor.rules.symptoms import THROWN_FAR, largest_kernel, replay_start

SMALLER = ("lr/",)
CLIP = ("clip",)
SCALE = ("standardise",)
INPUTS = ("standardise_inputs",)
DROP = ("drop_bad_rows", "impute_nan")
OWN_CAUSE = (
    "output_activation",
    "guard_operation",
    "finite_mask",
    "scale_targets",
)  # the experiment itself knows what it stands for
SPECIFIC: dict[str, tuple[Cause, float]] = {
    # Changes that touch one thing only; when such a one heals it is nearly a proof.
    "stable_loss": (Cause.LOSS_FUNCTION, 3.0),
    "safe_activation": (Cause.ACTIVATION, 3.0),
    "output_activation": (Cause.ACTIVATION, 2.5),
    "shift_labels": (Cause.LABELS, 4.0),
    "scale_targets": (Cause.LABELS, 3.0),
    "float32": (Cause.MIXED_PRECISION, 4.0),
    "loss_scaling": (Cause.MIXED_PRECISION, 2.0),
    "epsilon": (Cause.OPTIMIZER, 2.0),
    "reinitialise": (Cause.INITIALIZATION, 3.0),
    "structure_": (Cause.ARCHITECTURE, 4.0),
    "guard_operation": (Cause.ARCHITECTURE, 2.5),
    "finite_mask": (Cause.ARCHITECTURE, 2.5),
    "layer_norm": (Cause.ARCHITECTURE, 2.5),
    "add_normalisation": (Cause.ARCHITECTURE, 0.8),
    "optimizer_": (Cause.OPTIMIZER, 0.8),
}


@rule(
    code="CKD502",
    name="experiments-on-failure",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    Which single changes removed a reproduced failure, which only kept it finite, and which did nothing.
    ## Why it matters
    One experiment rarely proves a cause, a pattern does: only dropping rows heals bad data; scaling heals a wrong scale where
    a smaller rate merely keeps it finite; rate and clipping together heal exploding gradients; nothing of these heals a
    faulty formula.
    ## How to confirm
    Repeat the experiment with the code line in the report.
    ## How to fix
    Take the smallest change that makes the model learn.
    ## References
    Measured on 62 re-created public failures, each trained again with five changes.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    if replay.status is not ReplayStatus.REPRODUCED or not replay.experiments:
        return
    pattern = Pattern(replay)
    begun = replay_start(evidence)
    grown = largest_kernel(begun) > THROWN_FAR
    untrained = begun is None or not begun.iterations
    cast = [*_general(pattern, grown=grown), *_specific(pattern, untrained=untrained)]
    if not cast:
        return
    healing = [e.change for e in replay.experiments if e in _healing(pattern)]
    text = (
        f"What removed the failure: {'; '.join(healing[:4])}."
        if healing
        else "None of the changes tried removed the failure."
    )
    yield Finding(
        rule="CKD502",
        severity=Severity.INFO,
        message=text,
        measured=f"{len(healing)} of {len(replay.experiments)} experiments heal",
        votes=votes(*[c for c in cast if c[1]]),
        data={"confirms": _proved(cast)} if healing and _proved(cast) else {},
    )


def _healing(pattern: Pattern) -> set[object]:
    from ckptdoctor.rules.replay.outcomes import outcome

    return {e for e in pattern.experiments if outcome(e) is Outcome.HEALS}


def _general(pattern: Pattern, *, grown: bool) -> list[tuple[Cause, float, str]]:
    rate, clip, scale = pattern.best(*SMALLER), pattern.best(*CLIP), pattern.best(*SCALE)
    inputs = pattern.best("standardise_inputs")
    if pattern.heals(*DROP):
        return [
            (Cause.DATA_NONFINITE, 4.5, "dropping or repairing the bad rows removes the failure"),
            (Cause.LEARNING_RATE, -1.0, "the bad rows explain it"),
        ]
    if rate is Outcome.HEALS and clip is Outcome.HEALS and inputs is not Outcome.HEALS:
        return [
            (Cause.EXPLODING_GRADIENTS, 2.5, "a smaller rate and clipping both heal, scaling the inputs does not"),
            (Cause.LEARNING_RATE, 1.5, "a smaller rate heals"),
            (Cause.DATA_SCALE, -0.5 if scale is not Outcome.HEALS else 0.5, "scaling the inputs does not heal"),
        ]
    if clip is Outcome.HEALS and rate in (Outcome.FAILS, Outcome.FINITE) and scale is not Outcome.HEALS:
        failed = rate is Outcome.FAILS
        return [
            (
                Cause.EXPLODING_GRADIENTS,
                3.0 if failed else 1.8,
                f"clipping heals, a rate a hundred times smaller {'fails as well' if failed else 'does not'}",
            ),
            (Cause.LEARNING_RATE, -1.0 if failed else 0.0, "a hundred times smaller it fails as well"),
        ]
    if scale is Outcome.HEALS and rate is not Outcome.HEALS:
        return [
            (Cause.DATA_SCALE, 3.0, "standardising makes it learn, a smaller rate does not"),
            (Cause.LEARNING_RATE, -0.5, "a smaller rate does not make it learn"),
        ]
    if rate is Outcome.HEALS and scale is not Outcome.HEALS:
        weight = 2.8 if pattern.tried(*SCALE) else 2.0
        return [
            (Cause.LEARNING_RATE, weight, "a smaller rate heals, scaling does not"),
            (Cause.DATA_SCALE, -1.0, "scaling does not heal"),
        ]
    if rate is Outcome.HEALS and scale is Outcome.HEALS:
        return [
            (Cause.LEARNING_RATE, 1.5, "a smaller rate heals"),
            (Cause.DATA_SCALE, 1.5, "standardising heals too"),
            (Cause.EXPLODING_GRADIENTS, 1.0 if clip is Outcome.HEALS else -0.5, f"clipping {clip.value}"),
        ]
    if grown and all(e.start == "last_healthy" for e in pattern.experiments):
        return []  # no change brings weights back that were thrown far before the first replayed step
    if rate is Outcome.FAILS and clip is Outcome.FINITE and not pattern.any_heals():
        why = "clipping removes the overflow, a rate a hundred times smaller does not"
        return [(Cause.EXPLODING_GRADIENTS, 1.8, why), (Cause.LEARNING_RATE, -0.5, why)]
    return _nothing_helps(rate, clip, scale)


def _nothing_helps(rate: Outcome, clip: Outcome, scale: Outcome) -> list[tuple[Cause, float, str]]:
    if Outcome.FAILS in (rate, clip) and Outcome.HEALS not in (rate, clip, scale):
        why = "neither rate nor clipping nor scaling removes it: the fault is in a formula or in the data"
        return [
            (Cause.LOSS_FUNCTION, 1.2, why),
            (Cause.LABELS, 0.8, why),
            (Cause.ACTIVATION, 0.8, why),
            (Cause.ARCHITECTURE, 0.5, why),
            (Cause.LEARNING_RATE, -2.0 if rate is Outcome.FAILS else -0.5, why),
            (Cause.EXPLODING_GRADIENTS, -2.0 if clip is Outcome.FAILS else -0.5, why),
            (Cause.DATA_SCALE, -1.5 if scale is Outcome.FAILS else -0.3, why),
        ]
    if rate is Outcome.FINITE and clip is Outcome.FINITE:
        return [
            (Cause.LEARNING_RATE, 0.3, "a smaller rate keeps it finite"),
            (Cause.EXPLODING_GRADIENTS, 0.3, "clipping keeps it finite"),
        ]
    return []


def _specific(pattern: Pattern, *, untrained: bool) -> list[tuple[Cause, float, str]]:
    """Changes that stand for one cause.

    Args:
        untrained: the start took no step: only then do other initial weights stand for other initial weights.
    """
    plain = pattern.heals(*SMALLER) or pattern.heals(*CLIP)
    cast = []
    for prefix, (cause, weight) in SPECIFIC.items():
        healing = pattern.healing(prefix)
        if prefix == "reinitialise" and healing is not None and not untrained and healing.start == "last_healthy":
            continue
        if healing is not None:
            share = 0.5 if plain and cause is not Cause.LABELS else 1.0  # several changes heal: each proves less
            if prefix == "reinitialise" and untrained and not plain:
                share = 1.5  # neither smaller steps nor clipped ones help weights that are wrong before the first
            cast.append((healing.cause if prefix in OWN_CAUSE else cause, weight * share, f"{healing.change} heals"))
        elif pattern.best(prefix) is Outcome.FAILS:
            cast.append((cause, -1.0, "the change that would remove it does not"))
    return cast


def _proved(cast: list[tuple[Cause, float, str]]) -> str | None:
    """The cause the pattern speaks for most clearly."""
    best = max(cast, key=lambda c: c[1])
    return best[0].value if best[1] >= 2.0 else None
