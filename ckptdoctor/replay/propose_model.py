"""Experiments with the model: activations, initial weights, normalisation, precision, head, loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ckptdoctor.model import Cause
from ckptdoctor.replay import changes, surgery
from ckptdoctor.replay.activity import activation_name
from ckptdoctor.replay.code import number
from ckptdoctor.replay.heads import HeadFix, head_fix
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.losses import LossPlan, as_loss, snake, substitute
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.rebuild import head_activation, head_layer
from ckptdoctor.replay.situation import DEAD, HALF, SATURATED, Situation, layer_formula, named

BOUNDED = frozenset({"tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh"})


def activations(at: Situation) -> list[Trial]:
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
    chosen = [
        n
        for n in hidden
        if activation_name(n.layer) in kinds
        and holders(n.layer)
        and not (is_recurrent(n.layer) and activation_name(n.layer) in BOUNDED)
    ]
    if not chosen:
        return []
    safe = "leaky_relu" if kinds <= {"relu", "relu6"} else "relu"
    safe = safe if safe in _functions(at) else "elu"
    # fed back into itself a relu grows without bound, so a recurrence gets the bounded function
    wanted = {n.name: "tanh" if is_recurrent(n.layer) else safe for n in chosen}
    functions = {name: at.step.dialect.keras.activations.get(name) for name in set(wanted.values())}
    names = ", ".join(n.layer.name for n in chosen[:6]) + (", …" if len(chosen) > 6 else "")
    kinds &= {activation_name(n.layer) or "" for n in chosen}
    return [
        surgery.in_place_trial(
            "safe_activation",
            f"{'/'.join(sorted(functions))} instead of {'/'.join(sorted(kinds))} in {names}",
            Cause.VANISHING_GRADIENTS
            if kinds <= {"sigmoid", "tanh", "hard_sigmoid"} and at.collapsed
            else Cause.ACTIVATION,
            "; ".join(f"activation={wanted[n.name]!r} in layer {n.layer.name!r}" for n in chosen[:4]),
            [(holder, "activation", functions[wanted[n.name]]) for n in chosen for holder in holders(n.layer)],
            layer=chosen[0].name,
        )
    ]


def is_recurrent(layer: Any) -> bool:
    """Whether the layer feeds its output back into itself."""
    return getattr(layer, "cell", None) is not None


def holders(layer: Any) -> list[Any]:
    """The objects whose `activation` can be set: the layer, or a recurrent layer's cells, where it only reads theirs."""
    cell = getattr(layer, "cell", None)
    if cell is None:
        return [layer] if hasattr(layer, "activation") else []
    return [c for c in getattr(cell, "cells", [cell]) if hasattr(c, "activation")]


def _functions(at: Situation) -> set[str]:
    return set(dir(at.step.dialect.keras.activations))


def _suspects(at: Situation, hidden: Sequence[NamedLayer]) -> set[str]:
    """Names of activations to exchange: that of the failing layer, growing ones, and dead or saturated ones."""
    present = {activation_name(n.layer) or "" for n in hidden}
    suspects = present & {"exponential", "selu_exp", "squareplus"}
    place = named(at, at.point.layer) if at.point is not None else None
    if place is not None and layer_formula(at):
        suspects |= {activation_name(place.layer) or ""} & present
    if at.collapsed:
        suspects |= present & {"sigmoid", "tanh", "hard_sigmoid", "softsign"}
        for seen in (*at.activity, *at.activity_end):
            if (seen.dead_fraction or 0) > DEAD and seen.activation in present:
                suspects.add(str(seen.activation))
    elif any((seen.saturated_fraction or 0) > SATURATED for seen in at.activity):
        suspects |= present & {"sigmoid", "tanh"}
    return suspects - {""}


def constant_weights(at: Situation) -> bool:
    """Whether some trainable kernel at the start has all its columns equal: symmetry that training cannot break."""
    trainable = {id(v) for v in at.step.raw_trainable}
    for variable, value in zip(at.step.variables, at.start.values, strict=True):
        if id(variable) in trainable and value.ndim >= 2 and value.shape[-1] > 1:
            columns = value.reshape(-1, value.shape[-1])
            if bool((columns == columns[:, :1]).all()):
                return True
    return False


def initial(at: Situation) -> list[Trial]:
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


def normalising(at: Situation) -> list[Trial]:
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


def precision(at: Situation) -> list[Trial]:
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


def head_problem(at: Situation) -> HeadFix | None:
    if not at.batches[0].targets:
        return None
    return head_fix(at.step, np.concatenate([b.targets[0] for b in at.batches]))


def head(at: Situation) -> list[Trial]:
    fix = head_problem(at)
    place = named(at, fix.layer) if fix is not None else None
    if fix is None or place is None:
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
                lambda config: surgery.with_head(config, place.layer.name, units, fix.activation),
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
            [(place.layer, "activation", function)],
            layer=fix.layer,
            plan=plan,
        )
    ]


def _as_object(dialect: Any, loss: Any, name: str) -> Any:

    return as_loss(dialect, loss, name)


def stable_loss(at: Situation) -> list[Trial]:
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
