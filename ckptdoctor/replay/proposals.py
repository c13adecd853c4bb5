"""Which experiments are worth running for this failure, the most promising first."""

from __future__ import annotations

from ckptdoctor.model import Phase
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.propose_data import labels, rows, shares, specks, standardising
from ckptdoctor.replay.propose_graph import finite_mask, guarded, layer_norm
from ckptdoctor.replay.propose_model import (
    activations,
    constant_weights,
    head,
    head_problem,
    initial,
    normalising,
    precision,
    stable_loss,
)
from ckptdoctor.replay.propose_optimizer import adam, clipping, epsilon, rates_far, rates_near, slots, smaller_rates
from ckptdoctor.replay.propose_structure import behind_head, structure
from ckptdoctor.replay.situation import LOSS_OPS, Maker, Situation, any_nonfinite, layer_formula


def propose(at: Situation) -> list[Trial]:
    """Trials in the order to run them; what does not apply is listed in `at.skipped`."""
    groups = [
        behind_head,
        layer_norm,
        *(_collapse_order(at) if at.collapsed else [guarded, finite_mask, *_failure_order(at)]),
    ]
    trials: list[Trial] = []
    seen: set[str] = set()
    for make in groups:
        for trial in make(at):
            if trial.key not in seen:
                seen.add(trial.key)
                trials.append(trial)
    return trials


def _failure_order(at: Situation) -> list[Maker]:
    point = at.point
    assert point is not None
    general: list[Maker] = [
        smaller_rates,
        clipping,
        standardising,
        shares,
        adam,
        activations,
        initial,
        normalising,
        head,
        slots,
    ]
    if point.phase is Phase.INPUT or any_nonfinite(at):
        return [rows, smaller_rates, clipping, standardising, stable_loss]
    if at.labels is not None:
        return [labels, smaller_rates, clipping, standardising]
    if at.half:
        return [precision, epsilon, *general, stable_loss]
    if point.phase is Phase.UPDATE:
        return [epsilon, slots, *general]
    if point.phase in (Phase.BACKWARD, Phase.LOSS) and (point.op or "").removesuffix("Grad") in LOSS_OPS:
        return [stable_loss, head, rows, epsilon, *general]
    if point.phase in (Phase.BACKWARD, Phase.FORWARD) and layer_formula(at):
        return [activations, rows, epsilon, *general, stable_loss]
    return [*general, stable_loss]


def _collapse_order(at: Situation) -> list[Maker]:
    first: list[Maker] = [shares, specks, head] if head_problem(at) is not None else [shares, specks]
    middle: list[Maker] = [
        standardising,
        activations,
        initial,
        rates_near,
        structure,
        adam,
        rates_far,
        clipping,
        normalising,
    ]
    if constant_weights(at):
        middle = [initial, *middle]
    if at.half:
        middle = [precision, epsilon, *middle]
    return [*first, *middle, head, rows]
