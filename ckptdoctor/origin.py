"""Where it broke: the best witness for layer, variable, phase, time and rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ckptdoctor.model import (
    Batches,
    Cause,
    Census,
    Evidence,
    Finding,
    Fingerprint,
    Missing,
    NonfinitePoint,
    Origin,
    Phase,
    Replay,
    ReplayStatus,
    Role,
    StepRecord,
    Timeline,
    TimelinePoint,
)
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import maybe_spec

OVERFLOW = frozenset({Cause.LEARNING_RATE, Cause.EXPLODING_GRADIENTS, Cause.DATA_SCALE, Cause.OPTIMIZER})
"""Causes that have no layer of their own: the first overflow is only where it showed."""
EVERYWHERE = "first layer with non-finite weights"
SPREADS = frozenset({"CKD101", "CKD103", "CKD114", "CKD304"})
"""Rules that name a layer because its weights are bad or unmoved or its type is narrow, not because something was seen to begin there."""
UNPLAYED = frozenset({ReplayStatus.NOT_RUN, ReplayStatus.FAILED})
GREW = 10.0
"""Times the norm of all weights, from which on updates count as diverging; hand-chosen, ordinary training stays below 3."""
EXPLODED = 1e3
"""Norm of the gradients ÷ norm of the weights, from which on gradients count as exploded; hand-chosen."""


def locate(findings: Sequence[Finding], evidence: Evidence, cause: Cause) -> Origin:
    """The origin by the best witness at hand: replay, else the recorded batch, else findings for the cause."""
    origin = (
        _by_growth(evidence, cause)
        or _by_replay(evidence)
        or _by_batch(evidence, cause)
        or _by_findings(findings, evidence, cause)
    )
    named = _layer_of_cause(findings, cause)
    if named is not None and cause not in OVERFLOW and _outranks(named, origin):
        origin = replace(origin, layer=named.layer, variable=named.variable, how=origin.how or f"finding {named.id}")
    if origin.phase is None:
        origin = replace(origin, phase=_phase_of_cause(findings, cause))
    if (suspect := _suspect(findings, evidence, cause, origin)) is not None:
        origin = replace(origin, layer=suspect[0], variable=None, how=suspect[1])
    if origin.layer is None and (lost := _where_the_signal_ends(findings)) is not None:
        origin = replace(origin, layer=lost.layer, how=origin.how or f"finding {lost.id}")
    return _with_time(origin, evidence)


def _suspect(findings: Sequence[Finding], evidence: Evidence, cause: Cause, origin: Origin) -> tuple[str, str] | None:
    """A layer to look at first and why, where all that is known is which weights became non-finite, or nothing.

    One step spreads NaN to every weight, so that the first of them says little. A layer of the user's own, which could not
    be rebuilt, is then likelier: nobody tested it. A loss at fault acts on the layer whose output it takes.
    """
    known = next((f for f in findings if origin.how == f"finding {f.id}"), None)
    everywhere = origin.how == EVERYWHERE or (known is not None and known.rule in SPREADS and cause not in OVERFLOW)
    if cause is Cause.DATA_NONFINITE or not (origin.layer is None or everywhere):
        return None
    own = next((f for f in findings if f.data.get("own") and f.layer is not None), None)
    replayed = isinstance(evidence.replay, Replay) and evidence.replay.status not in UNPLAYED
    if own is not None and own.layer is not None and not replayed and (everywhere or cause not in OVERFLOW):
        return own.layer, f"finding {own.id}"
    taken = _output_of_loss(evidence) if cause is Cause.LOSS_FUNCTION else None
    return (taken, "the layer whose output the loss takes") if taken is not None else None


def _output_of_loss(evidence: Evidence) -> str | None:
    """The layer that gives what the loss takes; of several outputs the only one whose own loss became non-finite."""
    spec = maybe_spec(evidence)
    found = head(spec)
    if found is not None or spec is None:
        return found[0].name if found is not None else None
    logs = evidence.logs if isinstance(evidence.logs, tuple) else ()
    bad = {
        name for log in logs for s in log.series if s.nonfinite for name in spec.outputs if _is_loss_of(s.name, name)
    }
    return bad.pop() if len(bad) == 1 and len(spec.outputs) > 1 else None


def _is_loss_of(series: str, output: str) -> bool:
    """Whether Keras logs the loss of this output under that name."""
    return series.removeprefix("epoch_").removeprefix("batch_") == f"{output}_loss"


def _where_the_signal_ends(findings: Sequence[Finding]) -> Finding | None:
    """The layer after which all rows look the same: where a fault without a layer of its own shows in a finite run."""
    return next((f for f in findings if f.rule == "CKD513" and f.layer is not None), None)


def _by_replay(evidence: Evidence) -> Origin | None:
    replay = evidence.replay
    if not isinstance(replay, Replay) or replay.status is not ReplayStatus.REPRODUCED or replay.first_bad is None:
        return None
    bad: NonfinitePoint = replay.first_bad
    return Origin(
        layer=bad.first_of_kind or bad.layer,
        variable=bad.variable,
        phase=bad.phase,
        op=bad.op,
        step=bad.optimizer_step,
        batch=bad.batch,
        rows=bad.rows,
        how=f"replay ({replay.mode})" if replay.mode else "replay",
    )


def _by_growth(evidence: Evidence, cause: Cause) -> Origin | None:
    """What made the weights larger step after step until something overflowed: the updates, or exploding gradients."""
    replay = evidence.replay
    if cause not in OVERFLOW or not isinstance(replay, Replay) or replay.first_bad is None:
        return None
    if replay.status is not ReplayStatus.REPRODUCED or replay.first_bad.phase in (Phase.INPUT, Phase.UPDATE):
        return None
    bad, norms = replay.first_bad, [r.weight_norm for r in replay.records if r.weight_norm]
    place = f"the {bad.phase.value}{'' if bad.phase is Phase.LOSS else ' pass'}"
    shown = f"the first overflow then showed in {place}{f' of {bad.layer}' if bad.layer else ''}"
    if len(norms) < 2 or not norms[-1] > GREW * norms[0]:
        return _by_checkpoints(evidence, bad, shown) if cause is not Cause.EXPLODING_GRADIENTS else None
    found = Origin(
        layer=_largest(replay, [r.layer_update_ratios for r in replay.records[:-1]]),
        phase=Phase.UPDATE,
        step=bad.optimizer_step,
        batch=bad.batch,
        how=f"replay: {len(norms) - 1} updates made the weights {norms[-1] / norms[0]:.1e} times as large; {shown}",
    )
    if cause is not Cause.EXPLODING_GRADIENTS:
        return found
    burst = next((r for r in replay.records if math.isfinite(r.gradient_norm) and _exploded(r)), None)
    if burst is None:
        return None
    return replace(
        found,
        layer=bad.first_of_kind or bad.layer or _largest(replay, [burst.layer_gradient_norms]),
        phase=Phase.BACKWARD,
        how=f"replay: in step {burst.step} weights of norm {burst.weight_norm:.1e} met gradients of norm "
        f"{burst.gradient_norm:.1e}; {shown}",
    )


def _by_checkpoints(evidence: Evidence, bad: NonfinitePoint, shown: str) -> Origin | None:
    """The updates, where they had made the weights larger before the checkpoint that replay started from."""
    healthy = [c for c in _censuses(evidence.timeline) if not c.nonfinite]
    if len(healthy) < 2:
        return None
    first, last = _layer_squares(healthy[0]), _layer_squares(healthy[-1])
    before, after = (math.sqrt(math.fsum(s.values())) for s in (first, last))
    if not before > 0 or not after > GREW * before:
        return None
    ratios = [(last[layer] / first[layer], layer) for layer in last if first.get(layer)]
    return Origin(
        layer=max(ratios)[1] if ratios else None,
        phase=Phase.UPDATE,
        step=bad.optimizer_step,
        batch=bad.batch,
        how=f"checkpoints: updates made the weights {after / before:.1e} times as large; {shown}",
    )


def _censuses(timeline: Timeline | Missing) -> list[Census]:
    """Of the checkpoints before the first bad one."""
    points = () if isinstance(timeline, Missing) else timeline.points[: timeline.first_bad]
    return [p.census for p in points if isinstance(p.census, Census)]


def _layer_squares(census: Census) -> dict[str, float]:
    """Sums of squares of the trainable weights by layer."""
    squares: dict[str, float] = {}
    for tensor in census.tensors:
        info = tensor.info
        if info.role is Role.WEIGHT and info.trainable is not False and info.layer is not None and tensor.rms:
            squares[info.layer] = squares.get(info.layer, 0.0) + info.size * tensor.rms * tensor.rms
    return squares


def _exploded(record: StepRecord) -> bool:
    return record.weight_norm is not None and record.gradient_norm > EXPLODED * record.weight_norm


def _largest(replay: Replay, lists: Sequence[Sequence[float]]) -> str | None:
    """The layer with the largest finite number in lists per layer."""
    pairs = [(n, layer) for one in lists for layer, n in zip(replay.layer_names, one, strict=False) if math.isfinite(n)]
    return max(pairs)[1] if pairs else None


def _phase_of_cause(findings: Sequence[Finding], cause: Cause) -> Phase | None:
    """The part of the step that was measured by the finding that speaks loudest for the cause, of those that say it."""
    best: tuple[float, Phase] | None = None
    for finding in findings:
        weight, told = sum(v.weight for v in finding.votes if v.cause is cause), finding.data.get("phase")
        if told and weight > 0 and (best is None or weight > best[0]):
            best = (weight, Phase(str(told)))
    return best[1] if best is not None else None


def _by_batch(evidence: Evidence, cause: Cause) -> Origin | None:
    if cause is not Cause.DATA_NONFINITE or not isinstance(evidence.batches, Batches):
        return None
    for array in (*evidence.batches.inputs, *evidence.batches.targets):
        if array.nonfinite and array.bad_rows:
            batch = array.bad_rows[0][0]
            rows = tuple(row for b, row in array.bad_rows if b == batch)
            steps = evidence.batches.steps
            step = steps[batch] if batch < len(steps) else None
            how = f"recorded batch, array {array.name}"
            return Origin(phase=Phase.INPUT, step=step, batch=batch, rows=rows, how=how)
    return None


def _by_findings(findings: Sequence[Finding], evidence: Evidence, cause: Cause) -> Origin:
    named = _layer_of_cause(findings, cause)
    if named is not None:
        return Origin(layer=named.layer, variable=named.variable, how=f"finding {named.id}")
    if isinstance(evidence.fingerprint, Fingerprint) and evidence.fingerprint.first_layer is not None:
        return Origin(layer=evidence.fingerprint.first_layer, how=EVERYWHERE)
    return Origin()


def _layer_of_cause(findings: Sequence[Finding], cause: Cause) -> Finding | None:
    """The finding with a layer that speaks loudest for the cause."""
    best: tuple[float, Finding] | None = None
    for finding in findings:
        weight = sum(v.weight for v in finding.votes if v.cause is cause)
        if finding.layer is not None and weight > 0 and (best is None or weight > best[0]):
            best = (weight, finding)
    return best[1] if best is not None else None


def _outranks(named: Finding, origin: Origin) -> bool:
    """A finding names the layer where the origin does not, or knows better than the place of the first overflow."""
    return origin.layer is None or bool(named.data.get("locates"))


def _with_time(origin: Origin, evidence: Evidence) -> Origin:
    epoch, step = origin.epoch, origin.step
    for log in evidence.logs if isinstance(evidence.logs, tuple) else ():
        for series in log.series:
            if series.first_nonfinite is None:
                continue
            if epoch is None and series.axis == "epoch":
                epoch = int(series.first_nonfinite[0])
            if step is None and series.axis == "step":
                step = int(series.first_nonfinite[0])
    bad = _first_bad_point(evidence)
    if bad is not None:
        epoch = bad.epoch if epoch is None else epoch
        step = bad.step if step is None else step
    return replace(origin, epoch=epoch, step=step)


def _first_bad_point(evidence: Evidence) -> TimelinePoint | None:
    timeline = evidence.timeline
    if isinstance(timeline, Missing) or not isinstance(timeline, Timeline) or timeline.first_bad is None:
        return None
    return timeline.points[timeline.first_bad]
