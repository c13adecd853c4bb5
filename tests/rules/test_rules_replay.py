"""Rules on what replay found (CKD5xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, NO_SKILL, experiment, standing_still, stuck
from making import (
    array,
    batches,
    census,
    evidence,
    layer,
    log,
    loss,
    optimizer,
    point,
    replay,
    series,
    spec,
    state,
    tensor,
    timeline,
)
from table import Row, fires, run, stays_silent

from ckptdoctor.model import (
    Cause,
    Experiment,
    LayerActivity,
    LeftOut,
    NonfinitePoint,
    Phase,
    ReplayStatus,
    Severity,
    Status,
    StepRecord,
    TensorGlimpse,
)
from ckptdoctor.model.replay import Baseline, Skill, StartState

PENALTY = LeftOut("regularizer", "group_lasso", "out")


def begun_at(iterations: int, largest: float = 0.3):
    """A timeline whose only healthy checkpoint, where replay began, took so many steps."""
    measured = census(tensor("h1/kernel", high=largest), iterations=iterations, path="epoch_000.keras")
    return {
        "timeline": timeline(point(0, measured), point(1, BAD, status=Status.SICK)),
        "start": StartState("epoch_000.keras", "last_healthy"),
    }


def answers_otherwise(accuracy: float, momentum: float = 0.9999, size: float = 1.0, steps: int = 400):
    """A network with BatchNormalization that ends training with an accuracy of 0.98."""
    normed = spec(
        layer("h"),
        layer("bn", "BatchNormalization", config={"momentum": momentum}),
        layer("out", units=10, activation="softmax"),
    )
    trained = log(series(values=(1.0, 0.3, 0.1, 0.05)), series("accuracy", (0.6, 0.9, 0.98, 0.98)))
    skill = Skill(0.2, accuracy=accuracy, majority=0.3)
    return evidence(
        spec=normed,
        logs=trained,
        census=census(iterations=steps),
        replay=replay(skill=skill),
        batches=batches(array(std=size)),
    )


def redrawn(iterations: int):
    """Only other initial weights remove the failure."""
    fields = begun_at(iterations)
    tried = replace(experiment("reinitialise", Cause.INITIALIZATION), start="last_healthy")
    ran = replace(reproduced(tried).replay, start=fields["start"])
    return evidence(census=BAD, timeline=fields["timeline"], replay=ran)


def thrown(largest: float):
    """An overflow in the forward pass of the first replayed step."""
    fields = begun_at(400, largest)
    bad = NonfinitePoint(Phase.FORWARD, "h1", "MatMul", None, 0, 400, 0, (), "inf", message="MatMul overflowed")
    ran = replay(ReplayStatus.REPRODUCED, first_bad=bad, start=fields["start"])
    return evidence(census=BAD, timeline=fields["timeline"], replay=ran)


def reproduced(
    *experiments: Experiment, losses=(1.0, 1.0, 1.0), phase: Phase = Phase.LOSS, op: str | None = "Log", **changes
):
    bad = NonfinitePoint(phase, changes.pop("layer", None), op, None, 2, 10, 0, (3,), "nan", message="it broke")
    records = tuple(StepRecord(n, 0, value, None, 1.0) for n, value in enumerate(losses))
    return evidence(
        census=BAD,
        spec=spec(),
        replay=replay(ReplayStatus.REPRODUCED, first_bad=bad, records=records, experiments=experiments, **changes),
    )


def activity(
    name: str = "h",
    *,
    dead: float | None = None,
    flat: float | None = None,
    gradient: float | None = None,
    kind: str = "relu",
    spread: float = 0.1,
    class_name: str = "Dense",
) -> LayerActivity:
    glimpse = TensorGlimpse(name, (32, 64), "float32", 0, 0.0, 1.0)
    return LayerActivity(name, class_name, kind, glimpse, dead, flat, spread, gradient_rms=gradient)


def opposed(correlation: float, outputs: int = 4):
    """A run under an own loss, whose predictions have this rank correlation with their targets."""
    skill = Skill(
        -1.0 if correlation < 0 else 0.9,
        rank_correlation=abs(correlation),
        signed_rank_correlation=correlation,
        outputs=outputs,
    )
    return standing_still(skill=skill, start=StartState("epoch_004.keras", "last_healthy", loss="substituted"))


ROWS = [
    Row(
        "CKD501",
        lambda: reproduced(),
        lambda: evidence(replay=replay()),
        cause=Cause.LOSS_FUNCTION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD501",  # a mean makes infinity only of what is huge already
        lambda: reproduced(losses=(), phase=Phase.FORWARD, op="Mean"),
        lambda: reproduced(losses=(), phase=Phase.FORWARD, op="Exp"),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD501",
        lambda: reproduced(losses=(1.0, 50.0, 1e9), phase=Phase.FORWARD, op="MatMul"),
        lambda: reproduced(losses=(1.0, 0.9, 0.8), phase=Phase.LOSS),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD501",  # what overflows where weights are 1e28 already is no formula at fault
        lambda: thrown(1e28),
        lambda: thrown(0.3),
        cause=Cause.LEARNING_RATE,
        says="MatMul",
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("standardise_inputs", Cause.DATA_SCALE), experiment("lr/10", Cause.LEARNING_RATE, learns=False)
        ),
        lambda: reproduced(
            experiment("standardise_inputs", Cause.DATA_SCALE, removes=False),
            experiment("lr/10", Cause.LEARNING_RATE, removes=False),
        ),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("lr/10", Cause.LEARNING_RATE),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS),
            experiment("standardise_inputs", Cause.DATA_SCALE, removes=False),
        ),
        lambda: reproduced(experiment("drop_bad_rows", Cause.DATA_NONFINITE)),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD502",  # clipping keeps it finite, other initial weights heal
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, learns=False),
            experiment("reinitialise", Cause.INITIALIZATION),
        ),
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, learns=False),
            experiment("reinitialise", Cause.INITIALIZATION, removes=False),
        ),
        cause=Cause.INITIALIZATION,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS),
        ),
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, removes=False),
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD502",
        lambda: reproduced(experiment("structure_behind_head", Cause.ARCHITECTURE)),
        lambda: reproduced(experiment("structure_behind_head", Cause.ARCHITECTURE, removes=False, learns=None)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("guard_operation", Cause.ARCHITECTURE),
            experiment("lr/10", Cause.LEARNING_RATE, removes=False, learns=None),
            phase=Phase.FORWARD,
        ),
        lambda: reproduced(experiment("guard_operation", Cause.ARCHITECTURE, removes=False, learns=None)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD502",  # weights that training had thrown far say nothing about those it began with
        lambda: redrawn(iterations=0),
        lambda: redrawn(iterations=400),
        cause=Cause.INITIALIZATION,
    ),
    Row(
        "CKD503",
        lambda: standing_still(
            experiments=(
                experiment("standardise_inputs", Cause.DATA_SCALE, removes=None),
                experiment("lr*10", Cause.LEARNING_RATE, removes=None, learns=False),
            )
        ),
        lambda: standing_still(
            skill=Skill(0.8, loss=0.1, trivial_loss=2.3),
            experiments=(experiment("standardise_inputs", Cause.DATA_SCALE, removes=None),),
        ),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD503",
        lambda: standing_still(
            custom_loss="reward",
            baseline=Baseline("first", None, 100, False, after=Skill(0.9)),
            experiments=(experiment("lr/10", Cause.LEARNING_RATE, removes=None),),
        ),
        lambda: standing_still(
            custom_loss="reward",
            baseline=Baseline("first", None, 100, False, after=Skill(0.1)),
            experiments=(experiment("lr/10", Cause.LEARNING_RATE, removes=None),),
        ),
        cause=Cause.LOSS_FUNCTION,
        says="With the usual loss",
    ),
    Row(
        "CKD503",
        lambda: standing_still(experiments=(experiment("structure_pooling", Cause.ARCHITECTURE, removes=None),)),
        lambda: standing_still(
            experiments=(experiment("structure_pooling", Cause.ARCHITECTURE, removes=None, learns=False),)
        ),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD503",  # nothing moved under the own loss, and all is learned under another
        lambda: evidence(
            optimizer=state(untouched_slots=True),
            replay=replay(custom_loss="overlap", baseline=Baseline("first", None, 9, False, after=Skill(0.9))),
        ),
        lambda: evidence(
            optimizer=state(),
            replay=replay(custom_loss="overlap", baseline=Baseline("first", None, 9, False, after=Skill(0.9))),
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD504",
        lambda: standing_still(activity_end=(activity(dead=1.0),)),
        lambda: standing_still(activity_end=(activity(dead=0.6),)),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD505",
        lambda: standing_still(
            activity_end=(activity(flat=0.95, kind="tanh"),),
        ),
        lambda: standing_still(activity_end=(activity(flat=0.3, kind="tanh"),)),
    ),
    Row(
        "CKD506",
        lambda: standing_still(
            activity=(activity("a", gradient=1e-7), activity("b", gradient=1e-4), activity("c", gradient=1e-2))
        ),
        lambda: standing_still(
            activity=(activity("a", gradient=1e-3), activity("b", gradient=1e-3), activity("c", gradient=1e-2))
        ),
        cause=Cause.VANISHING_GRADIENTS,
    ),
    Row(
        "CKD507",
        lambda: evidence(replay=replay(label_range=(1, 5, 5))),
        lambda: evidence(replay=replay()),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD508",
        lambda: evidence(replay=replay(disagreement="oneDNN hides the NaN")),
        lambda: evidence(replay=replay()),
    ),
    Row(
        "CKD509",
        lambda: evidence(
            census=BAD,
            optimizer=state("SGD", 1.0),
            replay=replay(records=(StepRecord(0, 0, 1.0, None, 1.0, sharpness=50.0),)),
        ),
        lambda: evidence(
            census=BAD,
            optimizer=state("SGD", 0.01),
            replay=replay(records=(StepRecord(0, 0, 1.0, None, 1.0, sharpness=50.0),)),
        ),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD510",
        lambda: evidence(census=BAD, replay=replay(custom_loss="rmse")),
        lambda: evidence(census=census(), replay=replay(custom_loss="rmse")),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD511",
        lambda: evidence(census=BAD, replay=replay()),
        lambda: evidence(census=census(), replay=replay()),
        cause=Cause.DATA_NONFINITE,
    ),
    Row(
        "CKD511",  # a name that Keras knows since not long ago may be somebody's own function
        lambda: evidence(census=BAD, spec=spec(loss=loss("tversky", custom=True)), replay=replay(steps=100)),
        lambda: evidence(census=BAD, spec=spec(), replay=replay(steps=100)),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD511",  # what was replayed lacks a part of the run
        lambda: evidence(census=BAD, replay=replay()),
        lambda: evidence(census=BAD, replay=replay(left_out=(PENALTY,))),
        cause=Cause.DATA_NONFINITE,
    ),
    Row("CKD512", lambda: evidence(replay=replay(not_restored=("a/kernel",))), lambda: evidence(replay=replay())),
    Row(
        "CKD513",
        lambda: standing_still(activity=(activity("a", spread=0.4), activity("pool", spread=0.0))),
        lambda: standing_still(activity=(activity("a", spread=0.4), activity("pool", spread=0.05))),
        says="After pool all rows look the same before training",
    ),
    Row(
        "CKD513",  # a first layer that only moves or scales is put beside the inputs
        lambda: standing_still(activity=(activity("norm", spread=0.0, class_name="LayerNormalization"),)),
        lambda: standing_still(activity=(activity("norm", spread=0.0),)),
        says="After norm all rows look the same before training",
    ),
    Row(
        "CKD514",
        lambda: standing_still(one_element_norms=("norm",)),
        lambda: standing_still(),
        cause=Cause.ARCHITECTURE,
        says="norm normalises over a single element",
    ),
    Row(
        "CKD515",
        lambda: evidence(census=BAD, replay=replay(left_out=(PENALTY,))),
        lambda: evidence(census=BAD, replay=replay(ReplayStatus.REPRODUCED, left_out=(PENALTY,))),
        cause=Cause.LOSS_FUNCTION,
        says="Without the regularizer group_lasso of out",
    ),
    Row(
        "CKD515",
        lambda: stuck(
            replay=replay(
                left_out=(PENALTY,), skill=NO_SKILL, baseline=Baseline("first", None, 9, False, after=Skill(0.9))
            )
        ),
        lambda: stuck(
            replay=replay(
                left_out=(PENALTY,), skill=NO_SKILL, baseline=Baseline("first", None, 9, False, after=Skill(0.1))
            )
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD517",  # the answer is the opposite of its target
        lambda: opposed(-0.95),
        lambda: opposed(0.95),
        cause=Cause.LOSS_FUNCTION,
        says="run against the targets: their rank correlation is -0.95",
    ),
    Row(
        "CKD517",  # a single number may be meant so under an own loss: a risk for a time
        lambda: opposed(-0.95, outputs=3),
        lambda: opposed(-0.95, outputs=1),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD516",
        lambda: answers_otherwise(accuracy=0.4),
        lambda: answers_otherwise(accuracy=0.9),
        cause=Cause.ARCHITECTURE,
        severity=Severity.ERROR,
        says="bn normalises with moving statistics that do not fit",
    ),
    Row(
        "CKD516",  # few rows of another scale rule the moving statistics
        lambda: answers_otherwise(accuracy=0.5, momentum=0.9, size=80.0),
        lambda: answers_otherwise(accuracy=0.5, momentum=0.9, size=80.0, steps=40),
        cause=Cause.DATA_SCALE,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


def test_another_loss_is_of_another_size_which_matters_to_plain_descent():
    def weights(optimizer_class):
        failed = spec(loss=loss("half_squares", custom=True), optimizer=optimizer(optimizer_class, 0.002))
        (found,) = run("CKD510", evidence(census=BAD, spec=failed, replay=replay(custom_loss="half_squares")))
        return {v.cause: v.weight for v in found.votes}

    descent, adam = weights("SGD"), weights("Adam")
    assert 0 < descent[Cause.LOSS_FUNCTION] < adam[Cause.LOSS_FUNCTION]
    assert adam[Cause.LEARNING_RATE] < 0 < descent[Cause.LEARNING_RATE]


def test_other_initial_weights_count_for_more_where_no_rate_makes_it_learn():
    def weights(faster_learns):
        tried = (
            experiment("reinitialise", Cause.INITIALIZATION),
            experiment("lr*10", Cause.LEARNING_RATE, learns=faster_learns),
            experiment("lr/10", Cause.LEARNING_RATE, removes=False, learns=False),
        )
        (found,) = run("CKD503", standing_still(experiments=tried))
        return {v.cause: v.weight for v in found.votes}

    assert weights(faster_learns=False)[Cause.INITIALIZATION] > weights(faster_learns=True)[Cause.INITIALIZATION]
    assert weights(faster_learns=False)[Cause.LEARNING_RATE] < 0 < weights(faster_learns=True)[Cause.LEARNING_RATE]
