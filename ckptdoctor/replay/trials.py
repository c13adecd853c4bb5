"""Running the experiments of one replay within the budget."""

from __future__ import annotations

import time

import tensorflow as tf

from ckptdoctor.model import Cause, Experiment, LayerActivity, NonfinitePoint
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.code import optimizer_code
from ckptdoctor.replay.formulas import Formula
from ckptdoctor.replay.lab import Lab, clearly_learnt, split_rows, steps_for
from ckptdoctor.replay.proposals import propose
from ckptdoctor.replay.reproduce import RunOutcome
from ckptdoctor.replay.session import Session, Start
from ckptdoctor.replay.situation import Situation
from ckptdoctor.replay.skill import judge_for, learns
from ckptdoctor.replay.state import Snapshot, put
from ckptdoctor.replay.suspicion import guarded_trial

YOUNG = 200  # optimizer steps before which a model that does not predict yet is only early


def run_trials(
    session: Session,
    outcome: RunOutcome,
    start: Start,
    point: NonfinitePoint | None,
    activity: tuple[tuple[LayerActivity, ...], tuple[LayerActivity, ...]],
    suspicion: tuple[NonfinitePoint, Formula, int, Start] | None = None,
    *,
    behind: bool = False,
) -> None:
    """Try the changes that may help, handing over each result as it comes.

    Args:
        outcome, start: the reproduction and the state it began from.
        point: the first bad place, None for a run that stays finite.
        activity: the layers at the first and at the last finite state.
        suspicion: what the usual formula of a missing custom loss did.
        behind: the run ended far below what simple models reach: being young is then no excuse, its steps were too few for
            their size.
    """
    lab = make_lab(session, outcome, start)
    session.reporter.stage(f"running the unchanged model for {lab.steps} steps to compare with")
    baseline = lab.run_baseline()
    session.reporter.found(baseline=baseline)
    if point is None and only_young(session, lab):
        session.reporter.found(learns=True)
        if not behind:
            return
    put(session.step.variables, lab.start)
    situation = Situation(
        step=session.step,
        batches=lab.train,
        start=lab.start,
        code=optimizer_code(session.step.model.optimizer, session.step.learning_rate),
        point=point,
        labels=session.rebuilt.labels,
        activity=activity[0],
        activity_end=activity[1],
        policy=str(getattr(session.step.model.dtype_policy, "name", "float32")),
        seed=session.request.seed,
    )
    if session.rebuilt.plan.substituted and situation.collapsed and session.request.failed:
        attempt_losses(session, lab, suspicion)
    else:
        attempt_all(session, lab, situation)


def only_young(session: Session, lab: Lab) -> bool:
    """Whether the run just had too few steps: its recorded end is no good, but the unchanged model learns when trained on."""
    request, after = session.request, lab.baseline.after if lab.baseline is not None else None
    if request.failed or session.rebuilt.plan.substituted or after is None:
        return False
    taken = None if request.last_healthy is None else request.checkpoints[request.last_healthy].iterations
    return clearly_learnt(after) and taken is not None and taken < YOUNG


def attempt_losses(session: Session, lab: Lab, suspicion: tuple[NonfinitePoint, Formula, int, Start] | None) -> None:
    """For a failed run whose loss is not at hand: the substitute, and the usual formula with its weak spot guarded."""
    # a stand-in that compares nothing is no fix, whatever it survives
    done = [_substitution(session, lab)] if lab.judge.kind else []
    session.reporter.found(experiments=tuple(done))
    if suspicion is None:
        return
    _, formula, failed_step, start = suspicion
    lab.failed_step, lab.start, lab.start_kind = failed_step, start.snapshot, start.state.kind
    lab.steps = steps_for(lab.seconds_per_step, failed_step)
    lab.train, lab.held_out = list(session.recording.batches), []
    done.append(lab.attempt(guarded_trial(session, formula)))
    session.reporter.found(experiments=tuple(done))


def attempt_all(session: Session, lab: Lab, situation: Situation) -> None:
    """The proposals in order until the budget is spent."""
    done: list[Experiment] = []
    deadline = time.monotonic() + session.request.budget
    trials = propose(situation)
    skipped = list(situation.skipped)
    for trial in trials:
        left = deadline - time.monotonic()
        if lab.cost(trial) > left:
            skipped.append((trial.change, f"the budget of {session.request.budget:g} seconds is spent"))
            continue
        session.reporter.stage(f"trying: {trial.change}")
        done.append(lab.attempt(trial))
        session.reporter.found(experiments=tuple(done), skipped_experiments=tuple(skipped))
    session.reporter.found(experiments=tuple(done), skipped_experiments=tuple(skipped))


def make_lab(session: Session, outcome: RunOutcome, start: Start) -> Lab:
    """The bench: from the state the failure was reproduced from; for a collapse from the run's beginning."""
    batches = session.recording.batches
    per_step = time_a_step(session, start)
    if outcome.failed_step is not None or session.request.failed:
        state, kind, checkpoint = start.snapshot, start.state.kind, start.state.checkpoint
        train, held = list(batches), list[Batch]()
    else:
        state, kind, checkpoint = beginning(session)
        train, held = split_rows(batches)
    return Lab(
        step=session.step,
        start=state,
        start_kind=kind,
        checkpoint=checkpoint,
        train=train,
        held_out=held,
        judge=judge_for(session.step, batches),
        failed_step=outcome.failed_step,
        steps=steps_for(per_step, outcome.failed_step),
        seconds_per_step=per_step,
        device=session.device,
        fresh=session.fresh,
        known=session.rebuilt.known,
    )


def time_a_step(session: Session, start: Start) -> float:
    """Seconds a compiled step takes, the compilation left out; the fastest of a few."""
    put(session.step.variables, start.snapshot)
    best = 10.0
    batches = session.recording.batches
    with tf.device(session.device):
        for n in range(6):
            began = time.monotonic()
            session.step(batches[n % len(batches)])
            best = min(best, time.monotonic() - began)
    return best


def beginning(session: Session) -> tuple[Snapshot, str, str | None]:
    """The state before training: the first checkpoint if it took no step, else fresh weights."""
    request = session.request
    first = request.checkpoints[0]
    if first.iterations in (0, None) and not first.nonfinite and len(request.checkpoints) > 1:
        return session.state_of(first)[0], "first", first.path
    return session.fresh, "fresh", None


def _substitution(session: Session, lab: Lab) -> Experiment:
    """The substituted loss itself, as the experiment it is."""
    plan, baseline = session.rebuilt.plan, lab.baseline
    assert baseline is not None
    after = baseline.after
    learnt = learns(after)
    needed = steps_until_bad(session)
    removes = not baseline.failed and baseline.steps >= needed if needed is not None else None
    if baseline.failed:
        removes = False
    return Experiment(
        key="replace_loss",
        change=f"{plan.names[0]} instead of the custom loss '{plan.custom}', whose code is not at hand",
        cause=Cause.LOSS_FUNCTION,
        code=f"model.compile(..., loss={plan.names[0]!r})",
        removes_failure=removes,
        learns=learnt,
        steps_survived=baseline.steps,
        steps=lab.steps,
        loss_before=baseline.losses[0] if baseline.losses else None,
        loss_after=baseline.losses[-1] if baseline.losses else None,
        losses=baseline.losses,
        score=after.score if after is not None else None,
        note=(
            "the run's own loss could not be replayed; compared with the run's checkpoints, which were non-finite "
            f"{'after at most ' + str(needed) + ' steps' if needed is not None else 'by the end'}"
        ),
        start=baseline.start,
    )


def steps_until_bad(session: Session) -> int | None:
    """Steps from the last healthy checkpoint to the first bad one, None where the files do not tell."""
    request = session.request
    if request.last_healthy is None or request.first_bad is None:
        return None
    before = request.checkpoints[request.last_healthy].iterations
    after = request.checkpoints[request.first_bad].iterations
    return after - before if before is not None and after is not None and after > before else None
