"""The bench for experiments: one state, the same batches, one change at a time, and what counts as healed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.model import Baseline, Cause, Experiment, Skill
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.failure import brief
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.skill import LEARNS_SCORE, Judge, learns, measure_skill
from ckptdoctor.replay.state import Snapshot
from ckptdoctor.replay.step import TrainingStep

HELD_OUT_SHARE = 0.5  # of LEARNS_SCORE: rows not trained on may score lower, but not like noise
FEWEST_HELD_OUT = 32
PROGRESS_HEALED, PROGRESS_STUCK = 0.8, 0.3  # of the way to a constant's loss; for a rate that is far too small
MAX_POINTS = 200
SECONDS_EACH = 1.2  # training time of one experiment
FEWEST_STEPS, MOST_STEPS = 60, 1600
FIRST_LOOK = 100  # steps after which a trial is judged for the first time; then after twice as many, and so on
CLEARLY_LEARNT = 0.6  # score at which a trial needs no further steps
BETTER = 0.7  # of what the baseline leaves unexplained: a collapse counts as removed only where less than that is left
FAR = 0.5  # of the constant's loss: the first loss must lie that far above it for `progress` to mean anything


@dataclass(slots=True)
class Setup:
    """What one trial runs with. `prepare` runs after the start state was put in."""

    step: TrainingStep
    start: Snapshot
    train: Sequence[Batch]
    held_out: Sequence[Batch]
    judge: Judge
    prepare: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One change, ready to be tried.

    Attributes:
        key, change, cause, code, layer: as in `Experiment`.
        setup: makes the changed set-up and puts everything back afterwards.
        compiles: whether it needs a graph of its own, which costs about a second.
    """

    key: str
    change: str
    cause: Cause
    code: str
    setup: Callable[[Lab], contextlib.AbstractContextManager[Setup]]
    compiles: bool = False
    layer: str | None = None


@dataclass(slots=True)
class Lab:
    """The common ground of all trials of one replay.

    Attributes:
        step: the unchanged compiled step. start: the state every trial begins from; start_kind, checkpoint: what it is.
        train: batches to run over, in recorded order. held_out: batches kept apart (collapsed runs only).
        failed_step: of the unchanged run from this start, None where it stays finite.
        compile_seconds: what a graph cost so far.
    """

    step: TrainingStep
    start: Snapshot
    start_kind: str
    checkpoint: str | None
    train: Sequence[Batch]
    held_out: Sequence[Batch]
    judge: Judge
    failed_step: int | None
    steps: int
    seconds_per_step: float
    device: str
    compile_seconds: float = 1.5
    before: Skill | None = None
    baseline: Baseline | None = None
    fresh: Snapshot | None = None
    known: Mapping[str, Any] = field(default_factory=dict)  # the user's own classes and functions by name
    notes: list[str] = field(default_factory=list)

    def plain(self) -> Setup:
        """The unchanged set-up."""
        return Setup(self.step, self.start, self.train, self.held_out, self.judge)

    def run_baseline(self) -> Baseline:
        """The unchanged run, over as many steps as every trial gets."""
        with tf.device(self.device):
            self.before = measure_skill(self.step, self.start, self.train, self.judge, self.held_out)
            outcome, after = self._train(self.plain())
        self.baseline = Baseline(
            start=self.start_kind,
            checkpoint=self.checkpoint,
            steps=outcome.steps,
            failed=outcome.failed_step is not None,
            losses=thin([r.loss for r in outcome.records]),
            progress=progress(self.before, after),
            before=self.before,
            after=after,
        )
        return self.baseline

    def _train(self, setup: Setup) -> tuple[RunOutcome, Skill | None]:
        """Train and judge; a trial that has clearly learnt and outlived the failure is not trained further."""
        deadline = time.monotonic() + 3 * SECONDS_EACH + 4
        total, state, prepare = RunOutcome(), setup.start, setup.prepare
        least = 0 if self.failed_step is None else 2 * (self.failed_step + 1)
        look, skill = max(FIRST_LOOK, least), None
        while True:
            outcome = run(
                setup.step,
                state,
                setup.train,
                min(look, self.steps) - total.steps,
                deadline=deadline,
                prepare=prepare,
                offset=total.steps,
            )
            _append(total, outcome)
            if outcome.failed_step is not None or outcome.error or outcome.before is None:
                return total, None
            state, prepare = outcome.before, None
            skill = measure_skill(setup.step, state, setup.train, setup.judge, setup.held_out)
            if total.steps >= self.steps or total.out_of_time or clearly_learnt(skill) or _dead(total):
                return total, skill
            look *= 2

    def cost(self, trial: Trial) -> float:
        """Seconds a trial will take, by what the others took."""
        return self.steps * self.seconds_per_step * 1.2 + 0.15 + (self.compile_seconds if trial.compiles else 0.0)

    def attempt(self, trial: Trial) -> Experiment:
        """Run one trial. One that cannot be built is reported undecided, with the reason."""
        started = time.monotonic()
        try:
            with tf.device(self.device), trial.setup(self) as setup:
                before = measure_skill(setup.step, setup.start, setup.train, setup.judge, setup.held_out)
                outcome, after = self._train(setup)
                failed = outcome.failed_step is not None or bool(outcome.error)
        except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, tf.errors.OpError) as error:
            return self._experiment(trial, removes=None, learnt=None, note=f"could not be tried ({brief(error, 160)})")
        if trial.compiles:
            spent = time.monotonic() - started - outcome.steps * self.seconds_per_step
            self.compile_seconds = max(0.3, 0.5 * self.compile_seconds + 0.5 * spent)
        learnt, note = self._learnt(trial, before, after)
        if self.failed_step is not None:
            removes: bool | None = not failed and outcome.steps > self.failed_step
        else:
            removes = False if failed else learnt and self._better_than_baseline(after, note)
        if outcome.error:
            removes, note = None, outcome.error
        return self._experiment(
            trial, removes=removes, learnt=False if failed else learnt, note=note, outcome=outcome, after=after
        )

    def _better_than_baseline(self, after: Skill | None, note: str) -> bool:
        """Whether clearly less is left unexplained than by the unchanged run, where that comes to learn something too."""
        unchanged = self.baseline.after if self.baseline is not None else None
        if note or unchanged is None or after is None or after.score is None or not learns(unchanged):
            return True
        return 1 - _apart(after) <= BETTER * (1 - _apart(unchanged))

    def _learnt(self, trial: Trial, before: Skill, after: Skill | None) -> tuple[bool | None, str]:
        if after is None or after.score is None:
            return None, ""
        if learns(after):
            if after.held_out is not None and after.held_out < HELD_OUT_SHARE * LEARNS_SCORE:
                return False, f"learns the recorded rows by heart: the score on rows kept apart is {after.held_out:.2f}"
            return True, ""
        covered = progress(before, after) if trial.cause is Cause.LEARNING_RATE else None
        stuck = self.baseline.progress if self.baseline is not None and not self.baseline.failed else None
        if covered is not None and stuck is not None and covered >= PROGRESS_HEALED and stuck < PROGRESS_STUCK:
            return True, (
                f"covers {covered:.0%} of the way from the first loss to that of the best constant, the unchanged run "
                f"{max(stuck, 0):.0%}"
            )
        return False, ""

    def _experiment(
        self,
        trial: Trial,
        *,
        removes: bool | None,
        learnt: bool | None,
        note: str,
        outcome: RunOutcome | None = None,
        after: Skill | None = None,
    ) -> Experiment:
        losses = [r.loss for r in outcome.records] if outcome is not None else []
        baseline = self.baseline.after if self.baseline is not None else None
        return Experiment(
            key=trial.key,
            change=trial.change,
            cause=trial.cause,
            code=trial.code,
            removes_failure=removes,
            learns=learnt,
            steps_survived=outcome.steps if outcome is not None else 0,
            steps=outcome.steps + (outcome.failed_step is not None) if outcome is not None else 0,
            loss_before=losses[0] if losses else None,
            loss_after=last_mean(losses, len(self.train)),
            losses=thin(losses),
            accuracy_after=after.accuracy if after is not None else None,
            layer=trial.layer,
            note=note,
            score=after.score if after is not None else None,
            baseline_score=baseline.score if baseline is not None else None,
            held_out=after.held_out if after is not None else None,
            start=self.start_kind,
        )


def steps_for(seconds_per_step: float, failed_step: int | None) -> int:
    """How many steps every trial gets: what fits in its time, and beyond the failing step with a margin."""
    affordable = int(SECONDS_EACH / max(seconds_per_step, 1e-5))
    wanted = max(FEWEST_STEPS, min(MOST_STEPS, affordable))
    return wanted if failed_step is None else max(wanted, 2 * (failed_step + 1))


def progress(before: Skill | None, after: Skill | None) -> float | None:
    """Share of the way from the first loss to that of the best constant; None where either is unknown."""
    if before is None or after is None or before.loss is None or after.loss is None or before.trivial_loss is None:
        return None
    distance = before.loss - before.trivial_loss
    if distance <= FAR * abs(before.trivial_loss):
        return None
    return (before.loss - after.loss) / distance


def thin(values: Sequence[float]) -> tuple[float, ...]:
    """At most `MAX_POINTS` of the values, evenly spread, first and last kept."""
    if len(values) <= MAX_POINTS:
        return tuple(values)
    places = np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int)
    return tuple(values[n] for n in places)


def last_mean(losses: Sequence[float], count: int) -> float | None:
    """Mean of the losses of the last pass over the batches."""
    if not losses:
        return None
    last = losses[-count:]
    value = math.fsum(last) / len(last) if all(math.isfinite(v) for v in last) else last[-1]
    return float(value)


def split_rows(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every fourth batch kept apart, where enough rows remain on both sides; else nothing."""
    held = [b for n, b in enumerate(batches) if n % 4 == 1]
    train = [b for n, b in enumerate(batches) if n % 4 != 1]
    if sum(b.rows for b in held) < FEWEST_HELD_OUT or not train:
        return list(batches), []
    return train, held


def model_start(step: TrainingStep, base: TrainingStep, start: Snapshot) -> Snapshot:
    """A start state for another step over the same model: its weights, the new optimizer's own fresh slots."""
    known = {id(v): value for v, value in zip(base.variables, start.values, strict=True)}
    values: list[Any] = [known[id(v)] if id(v) in known else v.numpy() for v in step.variables]
    return Snapshot(tuple(values))


def _append(total: RunOutcome, part: RunOutcome) -> None:
    """Add a further stretch of the same run."""
    total.steps += part.steps
    total.records.extend(part.records)
    total.failed_step, total.failed_batch, total.measured = part.failed_step, part.failed_batch, part.measured
    total.before, total.error, total.error_batch = part.before, part.error, part.error_batch
    total.out_of_time = part.out_of_time
    total.seconds += part.seconds


def clearly_learnt(skill: Skill) -> bool:
    """Whether no further step is needed to see that it learnt, on rows kept apart too."""
    if skill.score is None or skill.score < CLEARLY_LEARNT:
        return False
    return skill.held_out is None or skill.held_out >= HELD_OUT_SHARE * LEARNS_SCORE


def _dead(outcome: RunOutcome) -> bool:
    """Whether the last steps had a gradient of exactly zero: nothing can change any more."""
    last = outcome.records[-FIRST_LOOK:]
    return len(last) == FIRST_LOOK and all(r.gradient_norm == 0 for r in last)


def _apart(skill: Skill) -> float:
    """The score on rows kept apart where it is the lower one: what was learnt by heart does not count."""
    score = -1.0 if skill.score is None else skill.score
    return score if skill.held_out is None else min(score, skill.held_out)
