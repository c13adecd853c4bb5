"""What to do about a cause, with this model's own names and numbers; tested fixes first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ckptdoctor.causes import CAUSE_DOCS
from ckptdoctor.model import (
    Batches,
    Cause,
    Evidence,
    Experiment,
    Finding,
    Fix,
    ModelSpec,
    OptimizerSpec,
    Replay,
    Timeline,
)
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.courses import rise, training_loss
from ckptdoctor.rules.parts import maybe_spec, optimizer_spec_of
from ckptdoctor.rules.symptoms import learning_rate, main_loss, optimizer_class, went_nonfinite

USUAL_RATES: dict[str, float] = {
    "SGD": 1e-2,
    "Adam": 1e-3,
    "AdamW": 1e-3,
    "Nadam": 1e-3,
    "Adamax": 1e-3,
    "RMSprop": 1e-3,
    "Lion": 1e-4,
    "Adagrad": 1e-2,
    "Adadelta": 1.0,
    "Ftrl": 1e-2,
}
"""Rates to begin with: Keras' defaults, but for Lion a tenth of Adam's and for Adagrad and Adadelta those of their papers."""
FAR = 3.0
"""Distance of a kernel ÷ its size from which it was thrown rather than trained (CKD307; hand-chosen)."""

WATCH: dict[Cause, str] = {
    Cause.DATA_NONFINITE: "np.isfinite over every batch for one epoch",
    Cause.DATA_SCALE: "the loss of the first hundred steps, which should now fall at the usual rate",
    Cause.LABELS: "accuracy on the training set, which should leave chance within an epoch",
    Cause.LEARNING_RATE: "the loss of the first hundred steps; if it still climbs, divide by three again",
    Cause.EXPLODING_GRADIENTS: "the global gradient norm per step; it should stay below the clip most of the time",
    Cause.VANISHING_GRADIENTS: "gradient norms of the first layer against the last one",
    Cause.ACTIVATION: "the share of dead or saturated units of the named layer",
    Cause.LOSS_FUNCTION: "the loss per sample of the batches that failed",
    Cause.MIXED_PRECISION: "the loss scale, which should settle and not fall below 1",
    Cause.OPTIMIZER: "the update ratio per layer, about 0.001",
    Cause.INITIALIZATION: "the spread of every layer's output on the first batch",
    Cause.ARCHITECTURE: "the named layer's output on the first batch",
}


def advise(cause: Cause, evidence: Evidence, findings: Sequence[Finding] = ()) -> Fix:
    """The remedy for a cause.

    The experiment that healed; else what the finding that speaks loudest for it says (`data["fix"]`, `data["code"]`); else
    one derived from the configuration; else the general one.
    """
    tested = _tested(cause, evidence)
    watch = WATCH.get(cause, "")
    if tested is not None:
        verb = "makes the model learn" if tested.learns else "removes the failure"
        return Fix(
            text=f"{_sentence(tested.change)} {verb} (tried by replay).", code=tested.code, tested=True, watch=watch
        )
    text, code = _told(cause, findings) or _derived(cause, evidence)
    return Fix(text=text, code=code, tested=False, watch=watch)


def _told(cause: Cause, findings: Sequence[Finding]) -> tuple[str, str] | None:
    """The remedy of the loudest finding for the cause, where it has one of its own."""
    loudest = max(findings, key=lambda f: sum(v.weight for v in f.votes if v.cause is cause), default=None)
    if (
        loudest is None
        or not loudest.data.get("fix")
        or not any(v.cause is cause and v.weight > 0 for v in loudest.votes)
    ):
        return None
    return str(loudest.data["fix"]), str(loudest.data.get("code", ""))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tested(cause: Cause, evidence: Evidence) -> Experiment | None:
    if not isinstance(evidence.replay, Replay):
        return None
    worked = [
        e for e in evidence.replay.experiments if e.cause is cause and e.removes_failure is not False and healed(e)
    ]
    return max(worked, key=lambda e: (e.learns is True, e.score if e.score is not None else -1.0), default=None)


def healed(experiment: Experiment) -> bool:
    """The change made the model learn, or removed the failure where learning could not be judged."""
    return experiment.learns is True or (experiment.learns is None and experiment.removes_failure is True)


def _derived(cause: Cause, evidence: Evidence) -> tuple[str, str]:
    spec = maybe_spec(evidence)
    general = CAUSE_DOCS[cause].how_to_fix
    if cause is Cause.LEARNING_RATE:
        return _other_rate(evidence) or (general, "")
    if cause is Cause.EXPLODING_GRADIENTS:
        return general, _optimizer_code(evidence, "global_clipnorm=1.0")
    if cause is Cause.DATA_SCALE:
        return general, _normalise_code(evidence)
    if cause is Cause.DATA_NONFINITE:
        return general, "mask = np.isfinite(x).reshape(len(x), -1).all(axis=1)\nx, y = x[mask], y[mask]"
    if cause in (Cause.ACTIVATION, Cause.LOSS_FUNCTION, Cause.LABELS) and spec is not None:
        return _head_advice(spec, evidence) or (general, "")
    if cause is Cause.MIXED_PRECISION:
        return general, 'keras.mixed_precision.set_global_policy("mixed_bfloat16")'
    if cause is Cause.OPTIMIZER:
        return general, "optimizer = keras.optimizers.Adam(learning_rate=1e-3)"
    if cause is Cause.INITIALIZATION:
        return general, 'kernel_initializer="he_normal"  # before relu; "glorot_uniform" otherwise'
    return general, ""


def _other_rate(evidence: Evidence) -> tuple[str, str] | None:
    """Another rate, and the line to write.

    The optimizer's usual one where this one is far from it; else a step of ten in the direction that the run's course asks
    for: down where it failed or got worse, up where it crawled.
    """
    rate = learning_rate(evidence)
    if rate is None or not math.isfinite(rate) or rate <= 0:
        return None
    usual = USUAL_RATES.get(optimizer_class(evidence) or "", 1e-3)
    spec = optimizer_spec_of(maybe_spec(evidence))
    if spec is not None and spec.momentum and 0 < spec.momentum < 1 and optimizer_class(evidence) == "SGD":
        usual *= 1 - spec.momentum
    if rate >= 10 * usual or (rate <= usual / 10 and not went_nonfinite(evidence)):
        better = usual
    else:
        better = rate / 10 if _went_too_far(evidence) else rate * 10
    direction = "smaller" if better < rate else "larger"
    return (
        f"Try a {direction} learning rate: {better:g} instead of {rate:g}, then move by factors of three.",
        _optimizer_code(evidence, f"learning_rate={better:g}"),
    )


def _went_too_far(evidence: Evidence) -> bool:
    """The run failed, its loss ended above where it began, or a kernel went several times its own size."""
    loss = training_loss(evidence)
    risen = rise(loss) if loss is not None else None
    went = evidence.timeline.displacement if isinstance(evidence.timeline, Timeline) else ()
    far = any(d.relative is not None and d.relative > FAR and "bias" not in d.variable for d in went)
    return went_nonfinite(evidence) or far or (risen is not None and risen > 0)


def _optimizer_code(evidence: Evidence, argument: str) -> str:
    name = optimizer_class(evidence) or "Adam"
    name = "Adam" if name == "LossScaleOptimizer" else name
    arguments = [argument]
    rate = learning_rate(evidence)
    if "learning_rate" not in argument and rate is not None and rate > 0:
        arguments.insert(0, f"learning_rate={rate:g}")
    spec: OptimizerSpec | None = optimizer_spec_of(maybe_spec(evidence))
    if spec is not None and spec.momentum:
        arguments.append(f"momentum={spec.momentum:g}")
    return f"optimizer = keras.optimizers.{name}({', '.join(arguments)})"


def _normalise_code(evidence: Evidence) -> str:
    lines = ["mean, std = x_train.mean(axis=0), x_train.std(axis=0) + 1e-8", "x_train = (x_train - mean) / std"]
    target = evidence.batches.targets[0] if isinstance(evidence.batches, Batches) and evidence.batches.targets else None
    loss = main_loss(maybe_spec(evidence))
    regression = loss is not None and loss.name.startswith(("mean_", "huber", "log_cosh"))
    if (
        regression
        and target is not None
        and target.std is not None
        and (target.std > 10 or abs(target.mean or 0.0) > 10)
    ):
        lines.append("y_train = (y_train - y_train.mean(axis=0)) / y_train.std(axis=0)")
    return "\n".join(lines)


def _head_advice(spec: ModelSpec, evidence: Evidence) -> tuple[str, str] | None:
    found = head(spec)
    if found is None:
        return None
    layer, _, activation = found
    target = evidence.batches.targets[0] if isinstance(evidence.batches, Batches) and evidence.batches.targets else None
    if target is None or target.min is None or target.max is None:
        return None
    ids = (
        target.integral
        and target.min >= 0
        and len(target.classes) > 2
        and (target.shape[-1] == 1 or len(target.shape) == 2)
    )
    if ids and layer.units == 1 and activation in ("sigmoid", "softmax"):
        classes = int(target.max) + 1
        return (
            f"The targets are class ids 0…{classes - 1}: give {layer.name} {classes} units with softmax and use "
            "sparse_categorical_crossentropy.",
            f'outputs = keras.layers.Dense({classes}, activation="softmax", name="{layer.name}")(x)\n'
            'model.compile(loss="sparse_categorical_crossentropy", ...)',
        )
    if activation == "softmax" and layer.units == 1:
        return (
            f"Give {layer.name} a sigmoid: softmax over one unit is always 1.",
            f'keras.layers.Dense(1, activation="sigmoid", name="{layer.name}")',
        )
    if activation in ("relu", "sigmoid", "softmax") and (target.min < 0 or target.max > 1) and not ids:
        return (
            f"The targets reach from {target.min:.3g} to {target.max:.3g}: give {layer.name} a linear output.",
            f'keras.layers.Dense({layer.units}, activation="linear", name="{layer.name}")',
        )
    return None
