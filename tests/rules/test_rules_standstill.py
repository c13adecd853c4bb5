"""Rules on a whole run, above all one that learns nothing (CKD6xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, CLASSIFIER, IDS_LOSS, NAN, NO_SKILL, RELU_HEAD, STUCK, classes, experiment, stuck, went
from making import array, batches, census, evidence, layer, log, loss, replay, series, spec, state, timeline
from table import Row, fires, stays_silent

from ckptdoctor.model import Association, Cause, FeatureStats, Severity
from ckptdoctor.model.replay import Baseline, Skill, StartState

GROWING = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
FALLING = (0.3, 0.35, 0.4, 0.42, 0.45, 0.5, 0.5, 0.55)
FAR_BELOW = (2.1, 1.9, 1.85, 1.82, 1.81, 1.8, 1.8, 1.8)  # 0.78 of an even guess over ten classes, and no longer falling
EASY = Association("ridge regression", 0.95, 0.0, 0.02, 256)
CHANCE = Association("ridge regression", 0.0, 0.0, 0.02, 256)
HARD = Association("ridge regression", 0.30, 0.0, 0.02, 256)
FEW_PIXELS = Skill(-0.7, accuracy=0.7, majority=0.89, loss=0.5, trivial_loss=0.3)
RISING = log(
    series(values=(0.68, 0.66, 0.62, 0.57, 0.52, 0.507, 0.505, 0.501)),
    series("accuracy", (0.56, 0.62, 0.66, 0.69, 0.698, 0.703, 0.702, 0.702)),
)
USUAL = spec(
    layer("h", config={"kernel_initializer": "glorot_uniform"}),
    layer("out", units=10, activation="softmax"),
    loss=loss("sparse_categorical_crossentropy"),
)
EASY_ROWS = batches(y=classes(), association=EASY)
CLASSIFIER_OF_ROWS = spec(layer("h"), layer("out", units=None, activation="softmax"), loss=IDS_LOSS)
MEAN_SQUARES = spec(layer("h"), layer("out", units=1, activation="linear"))
SLOW_FALL = log(series(values=tuple(2.2 - 0.041 * n for n in range(10))))


def by_heart(apart: float, *, weights: bool = False):
    """A run that learned a little of its rows; `apart` is the score of the changed ones on rows kept apart."""
    tried = tuple(
        replace(experiment(f"lr*{n}", Cause.LEARNING_RATE, learns=False), score=0.7, held_out=apart) for n in (1, 2, 3)
    )
    extra = {"sample_weights": (array("sample_weight", "sample_weight"),)} if weights else {}
    return stuck(
        logs=log(series(values=(2.9, 2.7, 2.6, 2.5, 2.4, 2.25, 2.15, 2.0))),
        batches=batches(y=classes(), association=known(0.01), **extra),
        replay=replay(
            skill=Skill(0.12, loss=2.0, trivial_loss=2.303),
            baseline=Baseline("first", None, 400, False, after=Skill(0.3, held_out=-0.02)),
            experiments=tried,
        ),
    )


def near_variance(zeros: float):
    """A regression whose logged loss stays a little above the variance of the recorded targets, a share of them zero."""
    rain = FeatureStats(0, 0, 0.0, 4.0, 0.3, 0.75, common=0.0, common_share=zeros)
    y = array("y", "target", min=0.0, max=4.0, mean=0.3, std=0.75, features=(rain,))
    return evidence(
        census=census(iterations=400),
        spec=spec(),
        logs=log(series(values=(0.67, 0.61, 0.6, 0.6, 0.6, 0.6, 0.59, 0.59, 0.59, 0.59))),
        batches=batches(y=y, association=known(0.1)),
    )


def known(share: float) -> Association:
    return Association("ridge", share, 0.0, 0.01, 256)


def without_log(score: float):
    """Sixty steps of a run without a log: replay repeats it from its start, and then with another activation."""
    return evidence(
        census=census(iterations=60),
        spec=spec(),
        batches=batches(),
        replay=replay(
            skill=Skill(0.0, loss=1.0, trivial_loss=1.0, prediction_std=0.1, target_std=1.0),
            baseline=Baseline("first", None, 100, False, after=Skill(score)),
            experiments=(experiment("safe_activation", Cause.ACTIVATION),),
        ),
    )


def from_above(score: float = 0.0, reachable: float = 0.9):
    """A finite run whose loss still falls, and that from its start learns nothing unless its activation is changed."""
    return evidence(
        census=census(iterations=400),
        spec=spec(),
        logs=log(series(values=(3.0, 2.0, 1.7, 1.5, 1.4, 1.3, 1.2, 1.1))),
        batches=batches(association=known(reachable)),
        replay=replay(
            skill=Skill(0.01, loss=1.0, trivial_loss=1.0, prediction_std=0.1, target_std=1.0),
            baseline=Baseline("first", None, 100, False, after=Skill(score)),
            experiments=(experiment("safe_activation", Cause.ACTIVATION),),
        ),
    )


def unnamed(*curves, reachable: float = 0.0):
    """A finite run of which nothing names the loss."""
    return evidence(census=census(iterations=400), logs=log(*curves), batches=batches(association=known(reachable)))


def tailed(z: float):
    """Targets of variance 1 whose farthest value lies `z` robust deviations outside."""
    return array("y", "target", features=(FeatureStats(0, 0, -3.0, 3.0, 0.0, 1.0, outlier_z=z),))


def held_back(held_out: float):
    """A run that explains a third and no longer moves; with a tenth of the rate it learns all."""
    better = replace(experiment("lr/10", Cause.LEARNING_RATE), score=0.99, held_out=held_out)
    unchanged = Baseline("first", None, 400, False, after=Skill(0.35))
    skill = Skill(0.33, loss=1.5, trivial_loss=2.303, target_std=0.3)
    flat = log(series(values=(2.2, 1.7, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5)))
    return stuck(replay=replay(skill=skill, baseline=unchanged, experiments=(better,)), logs=flat)


def crawling(moved: float):
    own = spec(layer("h"), layer("out", units=1, activation="linear"), loss=loss("overlap", custom=True))
    slow = log(series(values=(0.83, 0.8296, 0.8292, 0.8288, 0.8285, 0.8281, 0.8277, 0.8273)))
    return evidence(
        census=census(iterations=400), spec=own, logs=slow, timeline=timeline(displacement=went(moved, moved))
    )


def substituted(**changes):
    """A run under a loss of the user's own, judged by the usual one: worse than a constant, though its loss fell."""
    skill = Skill(-0.3, loss=72.0, trivial_loss=55.0, **changes)
    start = StartState("epoch_004.keras", "last_healthy", loss="substituted")
    own = log(series(values=(1.9, 0.5, 0.1, 0.04, 0.03, 0.03, 0.03, 0.03)))
    return stuck(replay=replay(skill=skill, start=start), logs=own, batches=batches())


def directions(name: str):
    """A run whose predictions are in the order of their targets and of another length; one change of it meets the length, too."""
    skill = Skill(-1.0, loss=-0.99, trivial_loss=-0.08, rank_correlation=0.98, signed_rank_correlation=0.98, outputs=20)
    slower = replace(experiment("lr/10", Cause.LEARNING_RATE), score=0.92, held_out=0.9)
    baseline = Baseline("first", None, 100, False, after=Skill(0.3, held_out=0.3))
    return stuck(
        spec=spec(loss=loss(name)),
        replay=replay(skill=skill, baseline=baseline, experiments=(slower,)),
        logs=log(series(values=(0.3, *[0.0] * 9))),
        batches=batches(),
    )


def too_good(accuracy: float, **recorded):
    """A classifier of ten classes whose loss fell to 0.08, with an accuracy that stayed where it is."""
    losses = series(values=(50.0, 8.0, 3.4, 1.5, 0.6, 0.3, 0.08, 0.08, 0.08))
    return stuck(
        logs=log(losses, series("accuracy", (accuracy,) * 9)), batches=replace(batches(y=classes()), **recorded)
    )


def three_epochs(accuracy: float):
    return stuck(logs=log(series(values=(1245.0, 939.0, 869.0)), series("accuracy", (0.09, 0.1, accuracy))))


def few_rows():
    """Eight recorded rows: what a model seems to know of them may be chance."""
    return batches(array(shape=(8, 1, 10)), classes(shape=(8, 1, 1)))


def on_zero(model):
    """A run that stands on the loss of the answer 0 for rows of which most are 0."""
    rain = FeatureStats(0, 0, 0.0, 0.9, 0.0927, 0.2, common=0.0, common_share=0.7)
    dry = array("y", "target", min=0.0, max=0.9, mean=0.0927, std=0.2, features=(rain,))
    return evidence(
        census=census(iterations=400), spec=model, logs=log(series(values=(0.05, *[0.049] * 9))), batches=batches(y=dry)
    )


ROWS = [
    Row(
        "CKD601",  # too few steps to say so by themselves; but repeated they lead nowhere, and one change does
        lambda: without_log(0.0),
        lambda: without_log(0.5),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # an accuracy that rises below that of always naming the largest class
        lambda: stuck(replay=replay(skill=FEW_PIXELS), logs=RISING, batches=batches()),
        lambda: stuck(replay=replay(skill=replace(FEW_PIXELS, majority=0.5)), logs=RISING, batches=batches()),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # coming down towards a constant's loss from above, where one change learns what simple models know
        lambda: from_above(),
        lambda: from_above(score=0.2),
        severity=Severity.ERROR,
    ),
    Row("CKD601", lambda: from_above(), lambda: from_above(reachable=0.3), severity=Severity.ERROR),
    Row(
        "CKD601",  # the variance of a few hundred rows most of which are zero is not that of all rows
        lambda: near_variance(0.1),
        lambda: near_variance(0.8),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of unknown name that grew while the accuracy fell
        lambda: unnamed(series(values=GROWING), series("accuracy", tuple(reversed(FALLING)))),
        lambda: unnamed(series(values=GROWING), series("accuracy", FALLING)),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of unknown name that stands on the variance of the targets
        lambda: unnamed(series(values=(4.0, 2.0, 1.1, 1.01, 1.0, 1.01, 1.0, 1.01, 1.0, 1.0)), reachable=0.9),
        lambda: unnamed(series(values=(4.0, 2.0, 1.1, 1.01, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5)), reachable=0.9),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a weak signal, but one that holds on rows that were not trained on
        lambda: stuck(),
        lambda: stuck(logs=log(series(values=STUCK), series("val_loss", (2.26, 2.25, 2.24, 2.24, 2.24, 2.25)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # nobody knows the constant of an own loss
        lambda: crawling(0.004),
        lambda: crawling(0.4),
        severity=Severity.ERROR,
        says="no kernel went further than 0.004 of its size",
    ),
    Row(
        "CKD601",  # falling, but after eight epochs a hundred times what an even guess gives
        lambda: evidence(
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(series(values=tuple(900.0 - 80.0 * n for n in range(8)))),
        ),
        lambda: evidence(
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(series(values=tuple(30.0 - 3.0 * n for n in range(8)))),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # falls, but no kernel leaves its place while simple models learn all
        lambda: stuck(logs=SLOW_FALL, batches=EASY_ROWS, timeline=timeline(displacement=went(0.004, 0.003))),
        lambda: stuck(logs=SLOW_FALL, batches=EASY_ROWS, timeline=timeline(displacement=went(0.4, 0.3))),
        severity=Severity.ERROR,
        says="no kernel went further than 0.004 of its size",
    ),
    Row(
        "CKD601",  # one change learns nearly all, on rows kept apart too
        lambda: held_back(held_out=0.95),
        lambda: held_back(held_out=0.3),
        severity=Severity.ERROR,
        says="from the same start lr/10 comes to 95%",
    ),
    Row(
        "CKD601",  # weighted rows are asked for something else than the constant of all rows
        lambda: stuck(logs=log(series(values=(9.0, 8.9, 8.8, 8.8, 8.8, 8.8)))),
        lambda: stuck(
            logs=log(series(values=(9.0, 8.9, 8.8, 8.8, 8.8, 8.8))),
            batches=batches(y=classes(), sample_weights=(array("sample_weight", "sample_weight"),)),
            spec=CLASSIFIER_OF_ROWS,
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # few targets far outside hide whether the others are predicted
        lambda: stuck(spec=MEAN_SQUARES, logs=log(series(values=(1.0,) * 8)), batches=batches(y=tailed(3.0))),
        lambda: stuck(spec=MEAN_SQUARES, logs=log(series(values=(1.0,) * 8)), batches=batches(y=tailed(60.0))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # coming back from a spike is no way forward
        lambda: stuck(logs=log(series(values=(2.31, 2.303, 2.32, 2.31, 2.6, 2.5, 2.35, 2.31)))),
        lambda: stuck(logs=log(series(values=(2.31, 2.303, 2.32, 2.31, 2.6, 2.5, 2.25, 2.21)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # still falling, but after ten epochs far above what one value for all rows would give
        lambda: stuck(logs=log(series(values=tuple(80.0 - 7.0 * n for n in range(10))))),
        lambda: stuck(logs=log(series(values=tuple(80.0 - 16.0 * n for n in range(5))))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",
        lambda: stuck(batches=batches(y=classes(), association=EASY), logs=log(series(values=FAR_BELOW))),
        lambda: stuck(batches=batches(y=classes(), association=HARD), logs=log(series(values=FAR_BELOW))),
        severity=Severity.ERROR,
        says="Simple models explain 95%",
    ),
    Row(
        "CKD601",
        lambda: stuck(replay=replay(skill=Skill(0.3, loss=1.5, trivial_loss=2.3)), batches=few_rows()),
        lambda: stuck(replay=replay(skill=Skill(0.3, loss=1.5, trivial_loss=2.3))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # targets of a single value: no prediction can be told from a constant
        lambda: stuck(replay=replay(skill=replace(NO_SKILL, target_std=0.1))),
        lambda: evidence(
            replay=replay(skill=replace(NO_SKILL, target_std=0.0)),
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # learned by heart
        lambda: stuck(
            batches=batches(y=classes(), association=CHANCE),
            replay=replay(skill=Skill(0.11, loss=2.25, trivial_loss=2.303)),
        ),
        lambda: stuck(
            batches=batches(y=classes(), association=CHANCE),
            replay=replay(skill=Skill(0.4, loss=2.0, trivial_loss=2.303)),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of one's own may compare on another scale: the rows are in order
        lambda: substituted(rank_correlation=0.1),
        lambda: substituted(rank_correlation=0.9),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",
        lambda: stuck(),
        lambda: stuck(logs=log(series(values=(2.3, 2.2, 2.0, 1.8, 1.6, 1.5, 1.3, 1.2)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a direction has no length: predictions may be three times as long as their targets
        lambda: directions("mean_squared_error"),
        lambda: directions("cosine_similarity"),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # rows are learned by heart whatever is changed, and nothing of it holds elsewhere
        lambda: by_heart(-0.02),
        lambda: by_heart(0.4),
        severity=Severity.ERROR,
        says="learned by heart",
    ),
    Row("CKD601", lambda: by_heart(-0.02), lambda: by_heart(-0.02, weights=True), severity=Severity.ERROR),
    Row(
        "CKD601",  # a loss of 0.08 has room for a ninth of the rows being wrong, and four in five are
        lambda: too_good(0.2),
        lambda: too_good(0.7),
        severity=Severity.ERROR,
        says="A loss of 0.08 leaves room for 12% wrong rows at most, and 80% are wrong",
    ),
    Row(
        "CKD601",  # rows that are weighted may have any loss
        lambda: too_good(0.2),
        lambda: too_good(0.2, sample_weights=(array("sample_weight", "sample_weight"),)),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # three epochs are no plateau, but no beginning either where each is at chance and hundreds of times off
        lambda: three_epochs(0.1),
        lambda: three_epochs(0.3),
        severity=Severity.ERROR,
        says="After 3 epochs the loss is 869, 377 times that of always predicting one value",
    ),
    Row(
        "CKD601",  # rain of which most days are dry: the loss of the answer 0, under a relu, which answers nothing else
        lambda: on_zero(RELU_HEAD),
        lambda: on_zero(spec(layer("h1"), layer("out", units=1, activation="linear"))),
        severity=Severity.ERROR,
        says="is what the answer 0 for every row gives (0.04859), and out ends in relu",
    ),
    Row(
        "CKD602",  # even wrong labels move every weight
        lambda: stuck(spec=USUAL, optimizer=state()),
        lambda: stuck(spec=USUAL, optimizer=state(), timeline=timeline(unmoved=("layers/h/kernel",))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD602",
        lambda: stuck(spec=USUAL, optimizer=state(), batches=EASY_ROWS, timeline=timeline(displacement=went(0.3, 0.2))),
        lambda: stuck(spec=USUAL, optimizer=state(), batches=EASY_ROWS, timeline=timeline(displacement=went(9.0, 9.0))),
        cause=Cause.ARCHITECTURE,
    ),
    Row("CKD602", lambda: stuck(optimizer=state()), lambda: stuck(optimizer=state(rate=0.5)), cause=Cause.LABELS),
    Row(
        "CKD603",
        lambda: evidence(census=BAD, spec=CLASSIFIER, optimizer=state(), logs=log(series(values=(NAN, NAN)))),
        lambda: evidence(census=BAD, spec=CLASSIFIER, optimizer=state(), logs=log(series(values=(1.0, NAN)))),
        cause=Cause.LABELS,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)
