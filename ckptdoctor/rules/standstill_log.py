"""What log and batches tell of a run that may stand still: its loss beside that of a constant, and of what simple models reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from ckptdoctor.model import Association, Batches, Evidence, Timeline
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.courses import (
    MIN_EPOCHS,
    below_what_it_was,
    epochs,
    late_fall,
    rise,
    training_accuracy,
    training_loss,
)
from ckptdoctor.rules.parts import maybe_spec
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, main_loss, majority_rate, targets, trivial_loss

NO_BETTER = 0.97  # of the constant's loss; hand-chosen: 3 % is within the noise of an epoch's mean
MOVING = 0.05  # relative fall of the loss over the last half that counts as being on its way; hand-chosen
LITTLE_BETTER = 0.88  # of the constant's loss: what a model reaches by learning noise by heart; measured
EASY = 0.5  # share of the targets that simple models explain, above which the task counts as easy; hand-chosen
MIN_ROWS = 96  # recorded rows; with fewer the permutation spread covers ordinary data
FAR_FROM_EASY = 0.7  # of the constant's loss: a third explained where simple models explain nearly all; hand-chosen
FAR_BELOW = 0.65  # of the targets' variation that simple models explain out of sample and the model does not; measured:
# healthy runs with such a gap still fall by a fifth over their last half
ON_ZERO = 0.05  # relative distance from the loss of the answer 0; hand-chosen: that of the mean over recorded rows
BELOW = 0.3  # the same, where a setting of the model is extreme; hand-chosen
DROWNED = 1e-4  # share that passes all Dropout layers of a model; hand-chosen: six layers of 0.5 let 1.6 % pass
SLOW = 0.06  # relative fall over the last half below which such a run is not on its way; measured, as above
LONG = 8  # epochs from which a fall of SLOW is more than noise
HOPELESS = 2.0  # times the constant's loss; measured: healthy runs of that length end below it
FAR_ABOVE = 5.0  # times a guessed constant's loss that leave no doubt; hand-chosen
ASTRAY = 20.0  # times a guessed constant's loss after so many epochs; hand-chosen
VALIDATED = 0.985  # of the constant's loss: what the noise of a validation set does not reach by itself; hand-chosen
WORSE = 3.0  # times the first epoch's loss, with an accuracy that fell: no schedule or annealing does both; hand-chosen
CRAWL = 0.02  # relative fall of the loss over a whole run; hand-chosen
IN_PLACE = 0.02  # distance of every kernel ÷ its size, see CKD307
RARE = 0.9  # share of the largest class from which the others are usually weighted; hand-chosen
LOSS_OF_A_MISS = math.log(2.0)  # nats: the class that is not the likeliest has at most half of the probability
GAP = 0.3  # accuracy below what the loss guarantees; hand-chosen: class weights, which no file records, take less
AT_CHANCE = 0.15  # accuracy above the majority's share; hand-chosen, as `GAP`
FROM_THE_START = 3  # epochs at chance and `ASTRAY` that are more than a slow beginning; hand-chosen
UNSURE = 1.25  # of the constant's loss: a standard error of the variance of some hundred such rows; estimated
HEAVY = 20.0  # robust z-score of a target that no bell-shaped noise of any recorded size reaches; hand-chosen


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why a run is said not to learn.

    Attributes:
        kind: `constant_output`, `no_better_than_constant`, `worse_than_constant`, `chance` (nothing predicts these
            targets), `fails_an_easy_task`, `held_back` (one change learns nearly all), `crawls`, `gets_worse`,
            `by_heart` (nothing holds for rows kept apart), `contradicts_itself` (the loss says that rows are right which the
            accuracy says are wrong), `mirrored` (predictions run against the targets).
        message: one sentence with the numbers. measured, threshold, unit: the number that was judged.
        sure: 0 to 1, how much of the question the evidence covers.
    """

    kind: str
    message: str
    measured: float
    threshold: float
    unit: str
    sure: float


def contradicts_itself(evidence: Evidence) -> Standstill | None:
    """A cross-entropy that leaves room for few wrong rows, beside an accuracy at chance.

    A row whose class is not the likeliest costs ln 2 or more, so that accuracy ≥ 1 - loss / ln 2, for means over an epoch
    as well. Regularisation and smoothing only raise the loss; weights may lower it, hence the wide gap.
    """
    series, accuracy, found = training_loss(evidence), training_accuracy(evidence), _counted_classes(evidence)
    if series is None or accuracy is None or series.nonfinite or not found or weighted(evidence):
        return None
    if series.axis != "epoch" or min(series.count, accuracy.count) < MIN_EPOCHS:
        return None
    last, hits = median(series.values[-3:]), median(accuracy.values[-3:])
    guaranteed = 1 - last / LOSS_OF_A_MISS
    majority = max(majority_rate(evidence) or 0.0, 1 / found)
    if guaranteed - hits < GAP or hits > majority + AT_CHANCE or last < 0:
        return None
    text = f"A loss of {last:.3g} leaves room for {1 - guaranteed:.0%} wrong rows at most, and {1 - hits:.0%} are wrong: what is judged is not what the loss sees."
    return Standstill("contradicts_itself", text, hits, guaranteed, "accuracy", 0.85)


def _counted_classes(evidence: Evidence) -> int:
    """How many classes an accuracy counts, where the model's loss and targets make it one of classes; else 0."""
    spec, target = maybe_spec(evidence), targets(evidence)
    found, known = head(spec), main_loss(spec)
    if found is None or known is None or found[0].units is None:
        return 0
    single = target is None or target.row_sums_to_one or len(target.shape) == 2 or target.shape[-1] == 1
    if known.name in CATEGORICAL and found[0].units > 1 and single:
        return found[0].units
    return 2 if known.name in BINARY and found[0].units == 1 else 0


def lost_from_the_start(evidence: Evidence) -> Standstill | None:
    """Too short to be flat, but many times a constant's loss, and no better than the largest class in any epoch."""
    series, accuracy, found = training_loss(evidence), training_accuracy(evidence), _counted_classes(evidence)
    if series is None or accuracy is None or series.nonfinite or not found or series.axis != "epoch":
        return None
    count = min(series.count, accuracy.count)
    constant = None if weighted(evidence) else trivial_loss(evidence)
    if not FROM_THE_START <= count < MIN_EPOCHS or constant is None or constant[0] <= 0:
        return None
    best = max(majority_rate(evidence) or 0.0, 1 / found)
    ratio = series.values[-1] / constant[0]
    if ratio < ASTRAY or max(accuracy.values) > best + MOVING:
        return None
    text = f"After {count} epochs the loss is {series.values[-1]:.4g}, {ratio:.3g} times that of always predicting one value ({constant[1]}), and the accuracy {accuracy.values[-1]:.2f}."
    return Standstill("worse_than_constant", text, ratio, ASTRAY, "loss ÷ loss of the best constant", 0.7)


def by_log(evidence: Evidence) -> Standstill | None:
    curve = curve_of(evidence)
    if curve is None:
        return _crawls(evidence) or _gets_worse(evidence)
    ratio, certain = curve.ratio, curve.certain
    if _validated(evidence, curve):
        return None
    if certain and (found := _crawls_far_below(evidence, curve) or _stands_on_zero(evidence, curve)) is not None:
        return found
    if (heavy_tailed(evidence) and ratio < 1 / NO_BETTER) or (_mostly_one_value(evidence) and ratio < UNSURE):
        return None
    if certain and ratio > FAR_FROM_EASY and curve.fall < 2 * MOVING:
        told = by_association(evidence, curve)
        if told is not None:
            return told
    astray = far_off(evidence, ratio) if certain else ratio > ASTRAY and epochs(evidence) >= LONG
    if ratio < NO_BETTER or (on_its_way(evidence) and not astray):
        return None
    if not certain and 1 / NO_BETTER < ratio < FAR_ABOVE:
        return None  # the guess of the constant may be off by as much
    kind = "worse_than_constant" if ratio > 1.5 else "no_better_than_constant"
    return Standstill(kind, curve.text, ratio, NO_BETTER, "loss ÷ loss of the best constant", 0.85 if certain else 0.7)


@dataclass(frozen=True, slots=True)
class Curve:
    """The end of the training loss: its ratio to a constant's loss, its late fall, whether the constant is certain, in words."""

    ratio: float
    fall: float
    certain: bool
    text: str
    constant: float


def curve_of(evidence: Evidence) -> Curve | None:
    series = training_loss(evidence)
    if series is None or series.axis != "epoch" or not series.values or series.nonfinite:
        return None
    fall = late_fall(series)
    measured = None if weighted(evidence) else trivial_loss(evidence)
    constant = measured or _guess_of_constant(evidence, median(series.values[-3:]))
    if fall is None or constant is None or constant[0] <= 0:
        return None
    last = median(series.values[-3:])
    text = f"The loss stands at {last:.4g} over its last epochs; always predicting one value gives {constant[0]:.4g} ({constant[1]})."
    return Curve(last / constant[0], fall, measured is not None, text, constant[0])


def _validated(evidence: Evidence, curve: Curve) -> bool:
    """Whether rows that were not trained on are predicted better than by a constant, as the log's validation loss says."""
    name = series.name if (series := training_loss(evidence)) is not None else "loss"
    logs = evidence.logs if isinstance(evidence.logs, tuple) else ()
    held = next((s for log in logs for s in log.series if s.name == f"val_{name}" and not s.nonfinite), None)
    if held is None or len(held.values) < MIN_EPOCHS or not curve.certain or curve.constant <= 0:
        return False
    return median(held.values[-max(len(held.values) // 2, 1) :]) < VALIDATED * curve.constant


def _crawls_far_below(evidence: Evidence, curve: Curve) -> Standstill | None:
    """Falling, but so slowly that no kernel left its place, and far above what simple models reach."""
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    moved = _moved(evidence)
    if not isinstance(measured, Association) or measured.rows < MIN_ROWS or not moved or epochs(evidence) < LONG:
        return None
    if measured.by_number:
        return None
    if max(moved) >= IN_PLACE or measured.score - (1 - curve.ratio) <= FAR_BELOW or curve.fall > 2 * MOVING:
        return None
    text = f"{curve.text} Simple models explain {measured.score:.0%} of the same targets, and no kernel went further than {max(moved):.1g} of its size."
    return Standstill("crawls", text, max(moved), IN_PLACE, "distance ÷ first size", 0.8)


def _stands_on_zero(evidence: Evidence, curve: Curve) -> Standstill | None:
    """The loss that the answer 0 gives for every row, under an output of relu: it is cut off wherever it looks.

    Where most targets are one value this tells such a run from one whose constant is not well known.
    """
    found, target, known = head(maybe_spec(evidence)), targets(evidence), main_loss(maybe_spec(evidence))
    if found is None or found[2] != "relu" or target is None or known is None or known.name != "mean_squared_error":
        return None
    if target.mean is None or target.std is None or curve.fall > MOVING or epochs(evidence) < LONG:
        return None
    zero, last = target.mean**2 + target.std**2, curve.ratio * curve.constant
    if zero <= 0 or abs(last / zero - 1) > ON_ZERO:
        return None
    text = f"The loss stands at {last:.4g}, which is what the answer 0 for every row gives ({zero:.4g}), and {found[1].name} ends in relu."
    return Standstill("constant_output", text, last / zero, ON_ZERO, "loss ÷ loss of the answer 0", 0.85)


def _moved(evidence: Evidence) -> list[float]:
    went = evidence.timeline.displacement if isinstance(evidence.timeline, Timeline) else ()
    return [d.distance / d.size for d in went if d.size > 0 and "bias" not in d.variable]


def _crawls(evidence: Evidence) -> Standstill | None:
    """Under a loss whose constant is not known: it hardly fell in the whole run, and no kernel left its place."""
    series = training_loss(evidence)
    moved = _moved(evidence)
    values = [v for v in series.values if math.isfinite(v)] if series is not None and series.axis == "epoch" else []
    if len(values) < MIN_EPOCHS or series is None or series.nonfinite or not moved or not 0 < max(moved) < IN_PLACE:
        return None
    fall = (values[0] - values[-1]) / max(abs(values[0]), 1e-12)
    if abs(fall) >= CRAWL:
        return None
    text = f"The loss went from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs, and no kernel went further than {max(moved):.1g} of its size."
    return Standstill("crawls", text, fall, CRAWL, "relative fall over the whole run", 0.7)


def _gets_worse(evidence: Evidence) -> Standstill | None:
    """Under a loss whose constant is not known: it rose to several times what it was, and the accuracy fell meanwhile."""
    series, accuracy = training_loss(evidence), training_accuracy(evidence)
    values = [v for v in series.values if math.isfinite(v)] if series is not None and series.axis == "epoch" else []
    if series is None or len(values) < LONG or series.nonfinite or values[0] <= 0 or accuracy is None:
        return None
    last, change = median(values[-(len(values) // 4) :]), rise(accuracy)
    if last < WORSE * values[0] or change is None or change >= -MOVING / 2:
        return None
    text = f"The loss rose from {values[0]:.4g} to {last:.4g} in {len(values)} epochs while the accuracy fell by {-change:.2f}."
    return Standstill("gets_worse", text, last / values[0], WORSE, "× the first epoch's loss", 0.7)


def by_association(evidence: Evidence, curve: Curve) -> Standstill | None:
    """What simple models make of the recorded rows tells a hard task from a run that fails at an easy one."""
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    if not isinstance(measured, Association) or measured.rows < MIN_ROWS:
        return None
    ratio, fall, text, unit = curve.ratio, curve.fall, curve.text, "loss ÷ loss of the best constant"
    above = (measured.score - measured.chance) / max(measured.chance_std, 1e-9)
    if above < 2.5 and measured.score < 0.03 and ratio > LITTLE_BETTER:
        more = " Simple models do no better than chance either: inputs do not predict targets."
        return Standstill("chance", text + more, ratio, LITTLE_BETTER, unit, 0.85)
    if measured.by_number:
        return None
    gap, count = measured.score - (1 - ratio), epochs(evidence)
    far = gap > (FAR_BELOW if not drowned(evidence) else BELOW) and fall <= (SLOW if count >= LONG else 0.6 * MOVING)
    if measured.score > EASY and count >= 6 and (far or (ratio > LITTLE_BETTER and fall <= MOVING)):
        more = f" Simple models explain {measured.score:.0%} of the same targets."
        return Standstill("fails_an_easy_task", text + more, ratio, LITTLE_BETTER, unit, 0.85)
    return None


def drowned(evidence: Evidence) -> bool:
    """Whether so much is dropped on the way that next to nothing arrives: a fault of its own where the run stays behind."""
    spec = maybe_spec(evidence)
    rates = [layer.config.get("rate") for layer in spec.layers if "Dropout" in layer.class_name] if spec else []
    kept = math.prod(1 - rate for rate in rates if isinstance(rate, float) and 0 <= rate <= 1)
    return kept < DROWNED


def reachable(evidence: Evidence) -> float:
    """Share of the recorded targets that simple models explain; 0 where that was not measured on enough rows."""
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    if not isinstance(measured, Association) or measured.rows < MIN_ROWS or measured.by_number:
        return 0.0
    return measured.score


def easy_for_simple_models(evidence: Evidence) -> bool:
    """Simple models explain at least half of the recorded targets: the data is learnable."""
    return reachable(evidence) > EASY


def _guess_of_constant(evidence: Evidence, last: float) -> tuple[float, str] | None:
    """Without recorded targets: the loss of an even guess over the head's classes, accuracy at chance as a witness."""
    spec = maybe_spec(evidence)
    found, loss = head(spec), main_loss(spec)
    if found is None or loss is None or found[0].units is None:
        return None
    if loss.name == "mean_squared_error" and found[2] == "sigmoid":
        if last > 1:
            return None  # no error of targets of 0 or 1 is larger
        return 0.25, "one half for every target of 0 or 1"
    classes = found[0].units if loss.name in CATEGORICAL else 2 if loss.name in BINARY else 0
    if classes < 2:
        return None
    accuracy = training_accuracy(evidence)
    if accuracy is not None and accuracy.values and median(accuracy.values[-3:]) > 1.5 / classes:
        return None
    return math.log(classes), f"an even guess over {classes} classes"


def far_off(evidence: Evidence, ratio: float) -> bool:
    """After so many epochs a loss that is still twice a constant's was not merely begun too far away.

    Rows that are weighted, as a rare class often is, are asked for something else than the constant of all rows.
    """
    rare = (majority_rate(evidence) or 0.0) > RARE
    return ratio > HOPELESS and epochs(evidence) >= LONG and not rare and not weighted(evidence)


def weighted(evidence: Evidence) -> bool:
    """Whether recorded rows have weights of their own: the logged loss is then not the mean over rows."""
    return isinstance(evidence.batches, Batches) and bool(evidence.batches.sample_weights)


def heavy_tailed(evidence: Evidence) -> bool:
    """Targets of which few lie far outside: what they add to a squared error hides whether the others are predicted."""
    target = targets(evidence)
    return target is not None and any((f.outlier_z or 0.0) > HEAVY for f in target.features)


def _mostly_one_value(evidence: Evidence) -> bool:
    """Real targets of which half or more are one value, as rain and sales are zero.

    A squared error is then made by the few others, and its constant on the recorded rows is not that of all rows.
    """
    target = targets(evidence)
    return target is not None and not target.integral and any(f.common_share >= 0.5 for f in target.features)


def on_its_way(evidence: Evidence, majority: float | None = None) -> bool:
    """Whether loss or accuracy still improve.

    Args:
        majority: share of the most frequent class, where the recorded targets do not give it by themselves.
    """
    series = training_loss(evidence)
    fall = late_fall(series) if series is not None else None
    if series is not None and fall is not None and fall > MOVING and below_what_it_was(series):
        return True
    accuracy = training_accuracy(evidence)
    rising = rise(accuracy) if accuracy is not None else None
    if accuracy is None or rising is None or rising <= MOVING:
        return False
    majority = majority_rate(evidence) if majority is None else majority
    return majority is None or median(accuracy.values[-3:]) > majority + 2 * MOVING
