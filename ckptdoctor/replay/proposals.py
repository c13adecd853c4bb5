"""Which experiments are worth running for this failure, the most promising first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ckptdoctor.model import Cause, LayerActivity, NonfinitePoint, Phase
from ckptdoctor.replay import changes, surgery
from ckptdoctor.replay.activity import activation_name, finite_rows
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.code import OptimizerCode, number
from ckptdoctor.replay.heads import HeadFix, head_fix
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.labelrange import LabelRange, bad_label_rows
from ckptdoctor.replay.losses import LossPlan, snake, substitute
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.rebuild import head_activation, head_layer
from ckptdoctor.replay.state import Snapshot
from ckptdoctor.replay.step import TrainingStep

ADAPTIVE = frozenset(
    {"Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Lamb", "Adafactor", "Lion"}
)
GROWING_OPS = frozenset({"Exp", "Expm1", "Pow", "Square", "Cosh", "Sinh", "Softplus", "Cumprod", "Prod"})
LOSS_OPS = frozenset(
    {"Log", "Log1p", "RealDiv", "Div", "DivNoNan", "Sqrt", "Rsqrt", "Pow", "Exp", "Reciprocal", "Xlogy"}
)
HALF = ("float16", "mixed_float16")
DEAD, SATURATED = 0.5, 0.5  # shares from which a layer counts as dead or saturated (SageMaker Debugger)
ADAM_RATE = 1e-3  # Keras' own default
SAFE_EPSILON_HALF = 1e-3  # float16 cannot hold the usual 1e-7, and its smallest normal number is 6e-5
SAFE_EPSILON = 1e-7


@dataclass(slots=True)
class Situation:
    """What the proposals are made from.

    Attributes:
        point: the first bad place, None for a run that stays finite (a collapse).
        batches: of the trials' training. start: state they begin from.
    """

    step: TrainingStep
    batches: Sequence[Batch]
    start: Snapshot
    code: OptimizerCode
    point: NonfinitePoint | None
    labels: LabelRange | None
    activity: Sequence[LayerActivity]
    activity_end: Sequence[LayerActivity]
    policy: str
    seed: int
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def collapsed(self) -> bool:
        """Finite, but it does not learn."""
        return self.point is None

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.step.model

    @property
    def half(self) -> bool:
        """Whether any layer computes in float16."""
        return any(_policy_name(n.layer) in HALF for n in self.step.owners.layers)


def _policy_name(layer: Any) -> str:
    return str(getattr(getattr(layer, "dtype_policy", None), "name", "float32"))


def propose(at: Situation) -> list[Trial]:
    """Trials in the order to run them; what does not apply is listed in `at.skipped`."""
    groups = _collapse_order(at) if at.collapsed else _failure_order(at)
    trials: list[Trial] = []
    seen: set[str] = set()
    for make in groups:
        for trial in make(at):
            if trial.key not in seen:
                seen.add(trial.key)
                trials.append(trial)
    return trials


Maker = Callable[[Situation], list[Trial]]


def _failure_order(at: Situation) -> list[Maker]:
    point = at.point
    assert point is not None
    general: list[Maker] = [
        _smaller_rates,
        _clipping,
        _standardising,
        _adam,
        _activations,
        _initial,
        _normalising,
        _head,
        _slots,
    ]
    if point.phase is Phase.INPUT or _any_nonfinite(at):
        return [_rows, _smaller_rates, _clipping, _standardising, _stable_loss]
    if at.labels is not None:
        return [_labels, _smaller_rates, _clipping, _standardising]
    if at.half:
        return [_precision, _epsilon, *general, _stable_loss]
    if point.phase is Phase.UPDATE:
        return [_epsilon, _slots, *general]
    if point.phase in (Phase.BACKWARD, Phase.LOSS) and (point.op or "").removesuffix("Grad") in LOSS_OPS:
        return [_stable_loss, _head, _rows, _epsilon, *general]
    if point.phase in (Phase.BACKWARD, Phase.FORWARD) and _layer_formula(at):
        return [_activations, _rows, _epsilon, *general, _stable_loss]
    return [*general, _stable_loss]


def _collapse_order(at: Situation) -> list[Maker]:
    first: list[Maker] = [_head] if _head_problem(at) is not None else []
    middle: list[Maker] = [
        _standardising,
        _activations,
        _initial,
        _rates_near,
        _adam,
        _rates_far,
        _clipping,
        _normalising,
    ]
    if _constant_weights(at):
        middle = [_initial, *middle]
    if at.half:
        middle = [_precision, _epsilon, *middle]
    return [*first, *middle, _head, _rows]


def _any_nonfinite(at: Situation) -> bool:
    return any(not finite_rows(b).all() for b in at.batches)


def _layer_formula(at: Situation) -> bool:
    op = (at.point.op or "").removesuffix("Grad") if at.point is not None else ""
    return op in GROWING_OPS | LOSS_OPS


# --- rate, clipping, optimizer ----------------------------------------------------------------


def _smaller_rates(at: Situation) -> list[Trial]:
    if not _usable_rate(at):
        at.skipped.append(("learning rate divided", f"the learning rate is {at.code.rate}"))
        return []
    return [changes.rate_trial(at.code, 0.1), changes.rate_trial(at.code, 0.01)]


def _rates_near(at: Situation) -> list[Trial]:
    return [] if not _usable_rate(at) else [changes.rate_trial(at.code, f) for f in (10.0, 0.1)]


def _rates_far(at: Situation) -> list[Trial]:
    return [] if not _usable_rate(at) else [changes.rate_trial(at.code, f) for f in (100.0, 0.01)]


def _usable_rate(at: Situation) -> bool:
    return bool(np.isfinite(at.code.rate)) and at.code.rate > 0


def _clipping(at: Situation) -> list[Trial]:
    if any(at.code.options.get(o) for o in ("clipnorm", "clipvalue", "global_clipnorm")):
        at.skipped.append(("gradient clipping", "the optimizer clips already"))
        return []
    return [changes.clip_trial(at.code)]


def _adam(at: Situation) -> list[Trial]:
    if at.code.name in ADAPTIVE:
        at.skipped.append(("an adaptive optimizer", f"{at.code.name} is one"))
        return []
    make = surgery.adam(at.step.dialect, ADAM_RATE)
    change = f"Adam with learning rate {number(ADAM_RATE)} instead of {at.code.name}"
    return [
        surgery.optimizer_trial(
            "optimizer_adam", change, Cause.OPTIMIZER, surgery.describe_adam(at.code, ADAM_RATE), make
        )
    ]


def _slots(at: Situation) -> list[Trial]:
    if at.step.dialect.iterations(at.model.optimizer) == 0:
        return []
    inner = getattr(at.model.optimizer, "inner_optimizer", at.model.optimizer)
    make = lambda: type(inner).from_config(surgery.optimizer_config(inner))  # noqa: E731
    change = f"{at.code.name} with its state reset"
    code = "model.compile(optimizer=..., loss=...)  # again after loading: drops the optimizer's state"
    return [surgery.optimizer_trial("reset_slots", change, Cause.OPTIMIZER, code, make)]


def _epsilon(at: Situation) -> list[Trial]:
    trials: list[Trial] = []
    inner = getattr(at.model.optimizer, "inner_optimizer", at.model.optimizer)
    epsilon = getattr(inner, "epsilon", None)
    wanted = SAFE_EPSILON_HALF if at.half else SAFE_EPSILON
    if isinstance(epsilon, float) and epsilon < wanted:
        cause = Cause.MIXED_PRECISION if at.half else Cause.OPTIMIZER
        trials.append(
            surgery.in_place_trial(
                "epsilon",
                f"{at.code.name}'s epsilon {number(wanted)} instead of {number(epsilon)}",
                cause,
                at.code.with_options(epsilon=wanted),
                [(inner, "epsilon", wanted)],
            )
        )
    named = _named(at, at.point.layer) if at.point is not None else None
    own = getattr(named.layer, "epsilon", None) if named is not None else None
    if named is not None and isinstance(own, float) and own < 1e-3:
        trials.append(
            surgery.in_place_trial(
                "layer_epsilon",
                f"epsilon 0.001 instead of {number(own)} in {named.name}",
                Cause.ARCHITECTURE,
                f"{named.class_name}(epsilon=1e-3, name={named.layer.name!r})",
                [(named.layer, "epsilon", 1e-3)],
                layer=named.name,
            )
        )
    return trials


# --- data -------------------------------------------------------------------------------------


def _rows(at: Situation) -> list[Trial]:
    trials: list[Trial] = []
    bad = sum(int((~finite_rows(b)).sum()) for b in at.batches)
    total = sum(b.rows for b in at.batches)
    if bad and bad < total:
        code = "keep = np.isfinite(x).all(axis=tuple(range(1, x.ndim))); x, y = x[keep], y[keep]"
        if any(not _finite(b.targets) for b in at.batches):
            code = "keep = np.isfinite(y).reshape(len(y), -1).all(axis=1); x, y = x[keep], y[keep]"
        trials.append(
            changes.data_trial(
                "drop_bad_rows",
                f"the {bad} of {total} recorded rows with non-finite entries left out",
                Cause.DATA_NONFINITE,
                code,
                changes.drop_nonfinite_rows,
            )
        )
    if any(not _finite(b.inputs) for b in at.batches):
        trials.append(
            changes.data_trial(
                "impute_nan",
                "non-finite input entries replaced by their feature's mean",
                Cause.DATA_NONFINITE,
                "x = np.where(np.isfinite(x), x, np.nanmean(x, axis=0))",
                changes.impute(at.batches),
            )
        )
    if any(not _finite(b.targets) for b in at.batches) and len(at.step.plan.losses) == 1:
        loss = surgery.masked_targets(at.step.dialect, at.step.plan.losses[0])
        trials.append(
            surgery.in_place_trial(
                "mask_nan_targets",
                "non-finite targets masked in the loss",
                Cause.DATA_NONFINITE,
                "y = tf.where(tf.math.is_finite(y_true), y_true, tf.stop_gradient(y_pred))  # in the loss",
                [],
                plan=replace(at.step.plan, losses=(loss,)),
            )
        )
    point = at.point
    if not bad and point is not None and point.batch is not None and 0 < len(point.rows) <= 32:
        place = next((n for n, b in enumerate(at.batches) if b.index == point.batch), None)
        if place is not None and len(point.rows) < at.batches[place].rows:
            rows = ", ".join(str(r) for r in point.rows[:8])
            trials.append(
                changes.data_trial(
                    "drop_bad_rows",
                    f"rows {rows} of batch {point.batch} left out",
                    Cause.DATA_SCALE,
                    f"rows {rows} of recorded batch {point.batch}: look at them before leaving them out",
                    changes.drop_rows(at.batches, place, point.rows),
                )
            )
    return trials


def _finite(arrays: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def _labels(at: Situation) -> list[Trial]:
    found = at.labels
    assert found is not None
    trials: list[Trial] = []
    if found.shift:
        trials.append(
            changes.data_trial(
                "shift_labels",
                f"class indices {found.low}…{found.high} moved by {found.shift} to start at 0",
                Cause.LABELS,
                f"y = y - {found.low}" if found.low > 0 else f"y = y + {-found.low}",
                changes.shift_labels(found.output, found.shift),
            )
        )

    def inside(batch: Batch) -> Batch:
        keep = np.ones(batch.rows, dtype=bool)
        keep[list(bad_label_rows(batch, found))] = False
        return batch.take(keep)

    trials.append(
        changes.data_trial(
            "drop_bad_rows",
            f"rows with a class index outside 0…{found.classes - 1} left out",
            Cause.LABELS,
            f"keep = (y >= 0) & (y < {found.classes}); x, y = x[keep], y[keep]  # or give the head {found.high + 1} units",
            inside,
        )
    )
    return trials


def _standardising(at: Situation) -> list[Trial]:
    first = at.batches[0]
    inputs = [changes.scale_of([b.inputs[n] for b in at.batches]) for n in range(len(first.inputs))]
    targets = [changes.scale_of([b.targets[n] for b in at.batches]) for n in range(len(first.targets))]
    present = [s for s in inputs if s is not None]
    trials: list[Trial] = []
    none: list[changes.Scale | None] = [None] * len(targets)
    if not present:
        at.skipped.append(("inputs standardised", "they are indices"))
    elif all(s.usual for s in present):
        at.skipped.append(("inputs standardised", "they are near mean 0 and deviation 1 already"))
    else:
        trials.append(
            changes.data_trial(
                "standardise_inputs",
                f"inputs standardised ({_extent(present)})",
                Cause.DATA_SCALE,
                "x = (x - x_train.mean(axis=0)) / x_train.std(axis=0)",
                changes.standardise(inputs, none),
            )
        )
    regression = not any("crossentropy" in n for n in at.step.plan.names) and head_activation(at.model) in (
        None,
        "linear",
    )
    wide = [s for s in targets if s is not None]
    if regression and wide and (trials or not all(s.usual for s in wide)):
        trials.append(
            changes.data_trial(
                "standardise_inputs_targets",
                f"inputs and targets standardised (targets {_extent(wide)})",
                Cause.DATA_SCALE,
                "x = (x - x_train.mean(0)) / x_train.std(0); y = (y - y_train.mean(0)) / y_train.std(0)",
                changes.standardise(inputs, targets),
            )
        )
    return trials


def _extent(scales: Sequence[changes.Scale]) -> str:
    means = np.concatenate([np.ravel(s.mean) for s in scales])
    stds = np.concatenate([np.ravel(s.std) for s in scales])
    return f"means {means.min():.3g} to {means.max():.3g}, deviations {stds.min():.3g} to {stds.max():.3g}"


# --- model ------------------------------------------------------------------------------------


def _named(at: Situation, name: str | None) -> NamedLayer | None:
    return next((n for n in at.step.owners.layers if n.name == name), None)


def _activations(at: Situation) -> list[Trial]:
    """Relu for activations that overflow or saturate, leaky relu for dead ones; in every hidden layer that has them."""
    head = head_layer(at.model)
    hidden = [
        n
        for n in at.step.owners.layers
        if n.layer is not head and activation_name(n.layer) not in (None, "linear", "softmax")
    ]
    kinds = _suspects(at, hidden)
    if not kinds:
        return []
    chosen = [n for n in hidden if activation_name(n.layer) in kinds and hasattr(n.layer, "activation")]
    if not chosen:
        return []
    safe = "leaky_relu" if kinds <= {"relu", "relu6"} else "relu"
    function = at.step.dialect.keras.activations.get(safe if safe in _functions(at) else "elu")
    names = ", ".join(n.layer.name for n in chosen[:6]) + (", …" if len(chosen) > 6 else "")
    return [
        surgery.in_place_trial(
            "safe_activation",
            f"{safe} instead of {'/'.join(sorted(kinds))} in {names}",
            Cause.VANISHING_GRADIENTS
            if kinds <= {"sigmoid", "tanh", "hard_sigmoid"} and at.collapsed
            else Cause.ACTIVATION,
            "; ".join(f"activation={safe!r} in layer {n.layer.name!r}" for n in chosen[:4]),
            [(n.layer, "activation", function) for n in chosen],
            layer=chosen[0].name,
        )
    ]


def _functions(at: Situation) -> set[str]:
    return set(dir(at.step.dialect.keras.activations))


def _suspects(at: Situation, hidden: Sequence[NamedLayer]) -> set[str]:
    """Names of activations to exchange: that of the failing layer, growing ones, and dead or saturated ones."""
    present = {activation_name(n.layer) or "" for n in hidden}
    suspects = present & {"exponential", "selu_exp", "squareplus"}
    named = _named(at, at.point.layer) if at.point is not None else None
    if named is not None and _layer_formula(at):
        suspects |= {activation_name(named.layer) or ""} & present
    if at.collapsed:
        suspects |= present & {"sigmoid", "tanh", "hard_sigmoid", "softsign"}
        for seen in (*at.activity, *at.activity_end):
            if (seen.dead_fraction or 0) > DEAD and seen.activation in present:
                suspects.add(str(seen.activation))
    elif any((seen.saturated_fraction or 0) > SATURATED for seen in at.activity):
        suspects |= present & {"sigmoid", "tanh"}
    return suspects - {""}


def _constant_weights(at: Situation) -> bool:
    """Whether some trainable kernel at the start has all its columns equal: symmetry that training cannot break."""
    trainable = {id(v) for v in at.step.raw_trainable}
    for variable, value in zip(at.step.variables, at.start.values, strict=True):
        if id(variable) in trainable and value.ndim >= 2 and value.shape[-1] > 1:
            columns = value.reshape(-1, value.shape[-1])
            if bool((columns == columns[:, :1]).all()):
                return True
    return False


def _initial(at: Situation) -> list[Trial]:
    odd = _odd_kernel(at)
    if not at.collapsed and odd is None:
        at.skipped.append(("weights drawn anew", "the weights at the start have usual scales"))
        return []
    code = "kernel_initializer='he_normal'  # before relu; 'glorot_uniform' elsewhere"
    return [changes.reinitialise_trial(at.seed, odd, code)]


def _odd_kernel(at: Situation) -> str | None:
    """The first layer whose kernel's scale is more than 3 times off Glorot's, or constant."""
    names = {id(v): o for v, o in zip(at.step.raw_trainable, at.step.owners.owners, strict=True)}
    for variable, value in zip(at.step.variables, at.start.values, strict=True):
        if id(variable) not in names or value.ndim < 2 or value.size < 8:
            continue
        receptive = int(np.prod(value.shape[:-2], dtype=np.int64)) if value.ndim > 2 else 1
        usual = float(np.sqrt(2.0 / ((value.shape[-1] + value.shape[-2]) * receptive)))
        ratio = float(np.std(value.astype(np.float64))) / usual
        if not 1 / 3 <= ratio <= 3:
            return at.step.owners.trained[names[id(variable)]]
    return None


def _normalising(at: Situation) -> list[Trial]:
    kinds = [n.class_name for n in at.step.owners.layers]
    if any("Normalization" in k for k in kinds):
        return []
    head = head_layer(at.model)
    hidden = [
        n
        for n in at.step.owners.layers
        if n.layer is not head and n.class_name in ("Dense", "Conv1D", "Conv2D", "Conv3D")
    ]
    if len(hidden) < 3 or type(at.model).__name__ != "Sequential" or at.step.dialect.legacy:
        return []
    if head is None or not head.weights:  # the head's kernel stands in the layer before a bare activation
        hidden = hidden[:-1]
    names = [n.layer.name for n in hidden]
    return [
        surgery.rebuilt_trial(
            "add_normalisation",
            f"BatchNormalization behind each of the {len(hidden)} hidden layers",
            Cause.ARCHITECTURE,
            f"keras.layers.BatchNormalization() after {names[0]!r} … {names[-1]!r}",
            lambda config: surgery.with_normalisation(config, names),
            policy=at.policy,
        )
    ]


def _precision(at: Situation) -> list[Trial]:
    trials = [
        surgery.rebuilt_trial(
            "float32",
            f"everything in float32 instead of {at.policy if at.policy in HALF else 'float16'}",
            Cause.MIXED_PRECISION,
            'keras.config.set_dtype_policy("float32")  # or "mixed_bfloat16"',
            surgery.all_float32,
            alter=surgery.inputs_as_float32,
        )
    ]
    optimizer = at.model.optimizer
    if at.step.dialect.loss_scale(optimizer) is None and not at.step.dialect.legacy:
        keras = at.step.dialect.keras

        def scaled() -> Any:
            inner = type(optimizer).from_config(surgery.optimizer_config(optimizer))
            return keras.optimizers.LossScaleOptimizer(inner)

        trials.append(
            surgery.optimizer_trial(
                "loss_scaling",
                "dynamic loss scaling",
                Cause.MIXED_PRECISION,
                f"optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.{at.code.name}({number(at.code.rate)}))",
                scaled,
            )
        )
    return trials


def _head_problem(at: Situation) -> HeadFix | None:
    if not at.batches[0].targets:
        return None
    return head_fix(at.step, np.concatenate([b.targets[0] for b in at.batches]))


def _head(at: Situation) -> list[Trial]:
    fix = _head_problem(at)
    named = _named(at, fix.layer) if fix is not None else None
    if fix is None or named is None:
        return []
    dialect = at.step.dialect
    loss = dialect.keras.losses.get(fix.loss)
    plan = LossPlan((_as_object(dialect, loss, fix.loss),), None, (snake(fix.loss),), "rebuilt")
    change = f"{fix.activation} head with {fix.loss}: {fix.why}"
    if fix.units is not None:
        units = fix.units
        return [
            surgery.rebuilt_trial(
                "output_activation",
                change,
                fix.cause,
                fix.code,
                lambda config: surgery.with_head(config, named.layer.name, units, fix.activation),
                policy=at.policy,
                layer=fix.layer,
                plan=lambda _model: plan,
            )
        ]
    function = dialect.keras.activations.get(fix.activation)
    return [
        surgery.in_place_trial(
            "output_activation",
            change,
            fix.cause,
            fix.code,
            [(named.layer, "activation", function)],
            layer=fix.layer,
            plan=plan,
        )
    ]


def _as_object(dialect: Any, loss: Any, name: str) -> Any:
    from ckptdoctor.replay.losses import as_loss

    return as_loss(dialect, loss, name)


def _stable_loss(at: Situation) -> list[Trial]:
    """The usual loss for head and targets, where the run's own is another one."""
    if len(at.step.plan.losses) != 1 or not at.batches[0].targets:
        return []
    shape = getattr(at.model, "output_shape", None)
    if not isinstance(shape, tuple):
        return []
    targets = np.concatenate([b.targets[0] for b in at.batches])
    activation = head_activation(at.model)
    usual = substitute(at.step.dialect, activation, tuple(int(e or 1) for e in shape[1:]), targets)
    name = snake(str(usual.name))
    if name == at.step.plan.names[0] or name == "mean_square_of_output":
        at.skipped.append(("a stable form of the loss", "the run's loss is the usual stable one for its head"))
        return []
    plan = LossPlan((usual,), None, (name,), "rebuilt")
    return [
        surgery.in_place_trial(
            "stable_loss",
            f"{name} instead of {at.step.plan.names[0]}",
            Cause.LOSS_FUNCTION,
            f"model.compile(..., loss={name!r})",
            [],
            plan=plan,
        )
    ]
