"""Does the run learn? The measurements that together decide whether a finite run stands still.

A run stands still when its predictions are no better than a constant's and it is not on its way to become better.
Every test asks for both, since a converged run no longer moves and a young one is not yet good.
"""

from __future__ import annotations

from ckptdoctor.model import Association, Batches, Evidence, Experiment, Replay, Skill
from ckptdoctor.rules.courses import (
    MIN_EPOCHS,
    epochs,
    late_fall,
    training_loss,
)
from ckptdoctor.rules.parts import maybe_spec
from ckptdoctor.rules.standstill_log import (
    FAR_ABOVE,
    LONG,
    MIN_ROWS,
    MOVING,
    NO_BETTER,
    Standstill,
    by_association,
    by_log,
    contradicts_itself,
    curve_of,
    far_off,
    heavy_tailed,
    lost_from_the_start,
    on_its_way,
    reachable,
    weighted,
)
from ckptdoctor.rules.symptoms import iterations, main_loss, targets, unlabelled_code, went_nonfinite

MIN_STEPS = 40  # optimizer steps; hand-chosen, about an epoch of a small set
BY_HEART = 0.2  # score on trained rows that a small model may reach on targets nothing predicts; hand-chosen
NEAR_CONSTANT = 0.95  # of the constant's loss, as above
MIN_SKILL_ROWS = 32  # recorded rows below which a skill may be chance and does not overrule the log; hand-chosen
ORDERED = 0.5  # rank correlation of predictions and targets that a model without skill does not show; hand-chosen
HELD_BACK = 0.6  # share explained by a run that stands still before it is done; hand-chosen
NEARLY_ALL = 0.9  # share explained by one change of it, on the same rows in as many steps; hand-chosen
MOST = 0.75  # share that simple models explain, from which a run that explains none missed it; hand-chosen
NOTHING = 0.1  # share explained below which nothing was learned; hand-chosen, as in `_shows_skill`
NOTHING_FOUND = 0.03  # share that simple models explain, within what a lucky sample shows; hand-chosen
NOTHING_LOST = 0.9  # of the constant's loss, likewise
MIRRORED = -0.6  # signed rank correlation of predictions and targets that no lack of learning gives; hand-chosen
SOME_ORDER = 0.25  # rank correlation, where the run's own loss fell as well; hand-chosen
BY_ITS_OWN = 0.25  # last ÷ first loss of a run under a loss that is not at hand; hand-chosen
CONSTANT = 1e-3  # spread of predictions ÷ spread of targets below which the output is one value; hand-chosen


def standstill(evidence: Evidence) -> Standstill | None:
    """The reason to say that a finite run does not learn, or None (also where that cannot be told)."""
    if went_nonfinite(evidence) or not _enough_steps(evidence):
        return None
    if not _enough_epochs(evidence):
        return lost_from_the_start(evidence)
    if (told := contradicts_itself(evidence)) is not None:
        return told
    skill = evidence.replay.skill if isinstance(evidence.replay, Replay) else None
    if skill is not None and (held := _held_back(evidence, skill)) is not None:
        return held
    if skill is not None and (told := _nothing_transfers(evidence, skill)) is not None:
        return told
    if skill is not None:
        told = _by_skill(skill, evidence)
        if told is not None:
            return told
        if _shows_skill(skill) and _rows(evidence) >= MIN_SKILL_ROWS:
            if (told := _astray(skill, evidence)) is not None:
                return told
            return None if _well(skill) else _far_below_easy(evidence, skill)
    return by_log(evidence)


def _enough_steps(evidence: Evidence) -> bool:
    steps = iterations(evidence)
    return steps is None or steps >= MIN_STEPS


def _enough_epochs(evidence: Evidence) -> bool:
    """Whether the log is long enough to be flat; without one, whether the steps are, or lead nowhere when repeated."""
    steps, count = iterations(evidence), epochs(evidence)
    if count:
        return count >= MIN_EPOCHS
    return (steps is not None and steps >= 10 * MIN_STEPS) or _stays_where_it_began(evidence)


def _stays_where_it_began(evidence: Evidence) -> bool:
    """Whether the unchanged run, repeated from its start, learns nothing in as many steps as one change of it needs to learn."""
    replay = evidence.replay
    after = replay.baseline.after if isinstance(replay, Replay) and replay.baseline is not None else None
    if not isinstance(replay, Replay) or after is None or after.score is None or _elsewise(evidence, replay):
        return False
    return after.score < NOTHING and any(e.removes_failure and e.learns for e in replay.experiments)


def _shows_skill(skill: Skill) -> bool:
    """The end state clearly predicts: no other test can then say it stands still."""
    by_score = skill.score is not None and skill.score > 0.1
    by_loss = (
        skill.loss is not None
        and skill.trivial_loss is not None
        and skill.trivial_loss > 0
        and skill.loss < 0.9 * skill.trivial_loss
        and not _constant(skill)
    )
    return by_score or by_loss


def _held_back(evidence: Evidence, skill: Skill) -> Standstill | None:
    """A run that learned a part, and whose loss no longer falls, where one change of it learns nearly all.

    The unchanged run, repeated from the same start over as many steps, must have stayed behind as well.
    """
    replay = evidence.replay
    series = training_loss(evidence)
    fall = late_fall(series) if series is not None else None
    if not isinstance(replay, Replay) or skill.score is None or fall is None or replay.custom_loss or replay.left_out:
        return None
    if _other_scale(skill, evidence):
        return None
    after = replay.baseline.after if replay.baseline is not None else None
    behind = after is not None and after.score is not None and max(after.score, skill.score) < HELD_BACK
    best = max((e for e in replay.experiments if e.removes_failure and e.learns), key=_score, default=None)
    if not behind or best is None or _score(best) < NEARLY_ALL or fall > MOVING or epochs(evidence) < 6:
        return None
    text = f"The loss no longer falls, and the model explains {max(skill.score, 0.0):.0%} of what a constant leaves; from the same start {best.change} comes to {_score(best):.0%}."
    return Standstill("held_back", text, skill.score, HELD_BACK, "share explained", 0.8)


def _score(experiment: Experiment) -> float:
    """The lower of the scores on rows trained on and kept apart; rows that were only learned by heart do not count."""
    if experiment.score is None or experiment.held_out is None:
        return -1.0
    return min(experiment.score, experiment.held_out)


def _rows(evidence: Evidence) -> int:
    """Recorded rows the skill was measured on; many where that is not known."""
    sizes = [a.shape[0] * a.shape[1] for a in getattr(evidence.batches, "targets", ()) if len(a.shape) > 1]
    return max(sizes, default=MIN_ROWS)


def _well(skill: Skill) -> bool:
    """The end state explains half or more: whatever simple models reach, this one is on its feet."""
    return skill.score is not None and skill.score >= 0.5


def _far_below_easy(evidence: Evidence, skill: Skill) -> Standstill | None:
    """A model with some skill that stands still all the same.

    Either far below what simple models reach on the same rows; or so near the constant's loss that its skill is what
    can be learned by heart of rows whose targets nothing predicts.
    """
    curve = curve_of(evidence)
    told = by_association(evidence, curve) if curve is not None and curve.certain else None
    if told is None or curve is None:
        return None
    by_heart = (skill.score or 0.0) < BY_HEART and curve.ratio > NEAR_CONSTANT and curve.fall < MOVING
    return told if told.kind == "fails_an_easy_task" or by_heart else None


def _astray(skill: Skill, evidence: Evidence) -> Standstill | None:
    """Some rows are told apart, but after so many epochs the loss is still many times a constant's, by the log and on the recorded rows."""
    ratio, curve = _over_constant(skill), curve_of(evidence)
    if ratio is None or curve is None or curve.ratio < FAR_ABOVE or not far_off(evidence, ratio):
        return None
    text = f"{curve.text} On the recorded batches it is {skill.loss:.4g}."
    return Standstill("worse_than_constant", text, curve.ratio, FAR_ABOVE, "loss ÷ loss of the best constant", 0.85)


def _constant(skill: Skill) -> bool:
    return (
        skill.prediction_std is not None
        and skill.target_std is not None
        and skill.target_std > 0
        and skill.prediction_std < CONSTANT * skill.target_std
    )


def _by_skill(skill: Skill, evidence: Evidence) -> Standstill | None:
    if skill.target_std == 0:
        return None  # nothing to tell rows apart by: the answer that all targets ask for is a constant
    if _constant(skill) and skill.prediction_std is not None:
        spread = skill.prediction_std / (skill.target_std or 1.0)
        text = f"Predictions do not depend on the inputs: their spread over rows is {skill.prediction_std:.1e}, that of the targets {skill.target_std:.2g}."
        return Standstill("constant_output", text, spread, CONSTANT, "spread of predictions ÷ targets", 0.95)
    if (told := _mirrored(skill, evidence)) is not None:
        return told
    if _other_scale(skill, evidence) or _unlabelled(evidence) or _fell_under_its_own_loss(skill, evidence):
        return None
    ratio = _over_constant(skill)
    far = ratio is not None and (far_off(evidence, ratio) or _misses_what_a_change_finds(evidence, ratio))
    if _shows_skill(skill) or skill.score is None or (on_its_way(evidence, skill.majority) and not far):
        return None
    accuracy = (
        "" if skill.accuracy is None else f" (accuracy {skill.accuracy:.2f}, majority class {skill.majority:.2f})"
    )
    if ratio is not None:
        if heavy_tailed(evidence) and ratio < 1 / NO_BETTER:
            return None
        if ratio >= NO_BETTER:
            kind = "worse_than_constant" if ratio > 1.5 else "no_better_than_constant"
            text = f"After training the loss on the recorded batches is {skill.loss:.4g}; always predicting one value gives {skill.trivial_loss:.4g}{accuracy}."
            return Standstill(kind, text, ratio, NO_BETTER, "loss ÷ loss of the best constant", 0.9)
        return None
    if skill.score <= 0.02:
        text = f"After training the model explains {max(skill.score, 0.0):.0%} of what a constant prediction leaves unexplained{accuracy}."
        return Standstill("no_better_than_constant", text, skill.score, 0.02, "share explained", 0.8)
    return None


def _mirrored(skill: Skill, evidence: Evidence) -> Standstill | None:
    """Predictions run against the targets: what should be made small is made large.

    A single number that runs against its target may be meant so under a loss of one's own: a rate for a time to wait, a
    distance for what belongs together.
    """
    runs = skill.signed_rank_correlation
    single = skill.outputs is None or skill.outputs < 2
    if runs is None or runs > MIRRORED or (single and _substituted(evidence)):
        return None
    text = f"Predictions run against the targets: their rank correlation is {runs:.2f}."
    return Standstill("mirrored", text, runs, MIRRORED, "rank correlation", 0.9)


def _other_scale(skill: Skill, evidence: Evidence) -> bool:
    """The loss asks for no scale, or is not at hand, and the model orders the rows as the targets do.

    Directions have no length, and a loss of one's own may compare on another scale (the logarithm of the targets): how far
    predictions are from their targets then says nothing.
    """
    loss = main_loss(maybe_spec(evidence))
    free = loss is not None and loss.name == "cosine_similarity"
    return (free or _substituted(evidence)) and skill.rank_correlation is not None and skill.rank_correlation >= ORDERED


def _substituted(evidence: Evidence) -> bool:
    """Whether replay judged by a usual loss, since the run's own was not at hand."""
    replay = evidence.replay
    return isinstance(replay, Replay) and replay.start is not None and replay.start.loss == "substituted"


def _unlabelled(evidence: Evidence) -> bool:
    """The run's own loss is not at hand, and some targets stand for "no label", which it may leave out."""
    array = targets(evidence)
    return _substituted(evidence) and array is not None and unlabelled_code(array) is not None


def _fell_under_its_own_loss(skill: Skill, evidence: Evidence) -> bool:
    """The run's own loss is not at hand, by its log it came down to a small part of what it was, and rows are in some order.

    It may ask for less than the usual one: for the sizes of boxes only where there is one. Among targets that are mostly
    equal even good predictions are not well ordered.
    """
    if skill.rank_correlation is not None and skill.rank_correlation < SOME_ORDER:
        return False
    series = training_loss(evidence)
    if not _substituted(evidence) or series is None or series.nonfinite or len(series.values) < MIN_EPOCHS:
        return False
    return 0 < series.values[-1] < BY_ITS_OWN * series.values[0]


def _over_constant(skill: Skill) -> float | None:
    """Loss ÷ loss of the best constant; None where that is unknown or not positive."""
    if skill.loss is None or skill.trivial_loss is None or skill.trivial_loss <= 0:
        return None
    return skill.loss / skill.trivial_loss


def _nothing_transfers(evidence: Evidence, skill: Skill) -> Standstill | None:
    """Whatever is tried learns the recorded rows by heart, and nothing of it holds for rows that were kept apart.

    Simple models find next to nothing either: the targets are not those of these rows.
    """
    replay = evidence.replay
    after = replay.baseline.after if isinstance(replay, Replay) and replay.baseline is not None else None
    if not isinstance(replay, Replay) or after is None or after.held_out is None or epochs(evidence) < LONG:
        return None
    kept = [e.held_out for e in replay.experiments if e.held_out is not None]
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    nothing = isinstance(measured, Association) and measured.rows >= MIN_ROWS and measured.score < NOTHING_FOUND
    if not nothing or len(kept) < 3 or max(*kept, after.held_out) >= NOTHING or _elsewise(evidence, replay):
        return None
    if (
        skill.score is None
        or skill.score >= 2 * NOTHING
        or max((e.score or 0.0) for e in replay.experiments) < BY_HEART
    ):
        return None
    text = (
        f"Rows kept apart are predicted no better than by a constant ({after.held_out:.2f}) however the model is trained, though "
        "rows trained on are learned by heart; simple models find nothing either."
    )
    return Standstill("by_heart", text, after.held_out, NOTHING, "share explained of rows kept apart", 0.8)


def _elsewise(evidence: Evidence, replay: Replay) -> bool:
    """Whether what was replayed asks something else of the rows than the run did."""
    return bool(replay.custom_loss or replay.left_out) or weighted(evidence)


def _misses_what_a_change_finds(evidence: Evidence, ratio: float) -> bool:
    """A loss that comes down towards a constant's from above is no learning.

    Said where simple models explain most, the unchanged run repeated from its start stays there as well, and one
    change of it learns.
    """
    replay = evidence.replay
    after = replay.baseline.after if isinstance(replay, Replay) and replay.baseline is not None else None
    stays = after is not None and after.score is not None and after.score < NOTHING and ratio > NOTHING_LOST
    if not isinstance(replay, Replay) or not stays or epochs(evidence) < LONG or weighted(evidence):
        return False
    return reachable(evidence) >= MOST and any(e.removes_failure and e.learns for e in replay.experiments)
