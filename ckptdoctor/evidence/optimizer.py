"""What the optimizer remembers: learning rate in force, gradient scales, the last update, loss scaling.

Moment-based optimizers keep a running mean of squared gradients per weight. Its root, corrected for the start from zero,
is the gradient's scale, readable from a checkpoint that is still finite. Update formulas are those of `keras.optimizers`
(Keras 3); with Adam: `lr · √(1-β₂ᵗ) / (1-β₁ᵗ) · m / (√v + ε)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptdoctor.checkpoints.contract import Checkpoint
from ckptdoctor.evidence.graph import Order
from ckptdoctor.evidence.schedules import learning_rate_at
from ckptdoctor.evidence.serialized import number
from ckptdoctor.evidence.updates import Moments, UpdateMeter
from ckptdoctor.model import (
    Census,
    CompileSpec,
    GradientScale,
    Missing,
    ModelSpec,
    OptimizerSpec,
    OptimizerState,
    Role,
    TensorStats,
)

_SECOND = {
    "Adam": "velocity",
    "AdamW": "velocity",
    "Nadam": "velocity",
    "Lamb": "velocity",
    "ScheduleFreeAdamW": "velocity",
    "RMSprop": "velocity",
    "Adagrad": "accumulator",
    "Adadelta": "accumulated_grad",
    "Adamax": "norm",
}
"""The slot that remembers squared (Adamax: largest absolute) gradients."""

_ALIASES = {
    "m": "momentum",
    "v": "velocity",
    "rms": "velocity",
    "mg": "average",
    "vhat": "velocity_hat",
    "momentums": "momentum",
    "velocities": "velocity",
    "u": "norm",
    "norms": "norm",
    "accumulators": "accumulator",
    "accumulated_grads": "accumulated_grad",
    "accum_grad": "accumulated_grad",
    "accum_var": "accumulated_delta_var",
    "accumulated_delta_vars": "accumulated_delta_var",
}
"""Slot names of other writers (TF checkpoints, Keras 2)."""

_NOT_ITS_OWN = ("average", "gradient_accumulator", "model_average")
"""Slots that are not moments: EMA of the weights, accumulated gradients."""


def optimizer_state(
    census: Census, spec: ModelSpec | Missing, checkpoint: Checkpoint | None = None
) -> OptimizerState | Missing:
    """Interpret the optimizer's part of a checkpoint.

    Args:
        census: of the checkpoint.
        spec: for the optimizer's class, constants and schedule, and the order of the layers.
        checkpoint: the same one, open: the last update is then computed entry by entry (large slots sampled); without it
            from the slots' rms, which `notes` says.

    Returns:
        Missing where the checkpoint has neither optimizer state nor an optimizer's configuration.
    """
    model = spec if isinstance(spec, ModelSpec) else None
    configured = _configured(model)
    slots = census.of_role(Role.SLOT)
    if configured is None and not slots and not census.scalars:
        return Missing("the checkpoint holds no optimizer state and no optimizer configuration")
    names = _slot_names(slots)
    class_name = configured.class_name if configured is not None else _guess(names)
    steps = _steps(census)
    rate, source = _learning_rate(census, configured, steps)
    constants = _Constants(class_name, configured, steps, _last_rate(rate, configured, steps))
    notes: list[str] = []
    if configured is None and class_name is not None:
        notes.append(f"no configuration names the optimizer; its slots look like those of {class_name}")
    gradients = _gradients(census, names, Order(census, model), constants, checkpoint, notes)
    own = [t for t in slots if names[t.info.path] not in _NOT_ITS_OWN]
    return OptimizerState(
        class_name=class_name,
        iterations=census.iterations,
        learning_rate=rate,
        learning_rate_source=source,
        gradients=gradients,
        profile_ratio=_profile(gradients),
        loss_scale=census.scalars.get("loss_scale"),
        skipped_updates=_skipped(census, notes),
        untouched_slots=bool(own) and bool(census.iterations) and all(_is_untouched(t, names) for t in own),
        notes=tuple(notes),
    )


def _configured(model: ModelSpec | None) -> OptimizerSpec | None:
    if model is None or not isinstance(model.compile, CompileSpec):
        return None
    return model.compile.optimizer if isinstance(model.compile.optimizer, OptimizerSpec) else None


def _slot_names(slots: tuple[TensorStats, ...]) -> dict[str, str]:
    """Canonical slot names by path.

    Files without a configuration do not name slots. Two a weight, the second never negative and the first with both
    signs, can only be a mean of gradients and one of their squares: Adam's order.
    """
    names = {t.info.path: _ALIASES.get(t.info.slot or "", t.info.slot or "") for t in slots}
    if set(names.values()) == {"slot_0", "slot_1"}:
        first = [t for t in slots if names[t.info.path] == "slot_0"]
        second = [t for t in slots if names[t.info.path] == "slot_1"]
        squares = all(t.min is not None and t.min >= 0 for t in second)
        if squares and any(t.min is not None and t.min < 0 for t in first):
            renamed = {"slot_0": "momentum", "slot_1": "velocity"}
            return {path: renamed[name] for path, name in names.items()}
    return names


def _guess(slot_names: Mapping[str, str]) -> str | None:
    """The class by the names of its slots, where no configuration was saved and one class fits."""
    known = {
        frozenset({"momentum", "velocity"}): "Adam",
        frozenset({"momentum", "norm"}): "Adamax",
        frozenset({"velocity"}): "RMSprop",
        frozenset({"momentum"}): "SGD",
        frozenset({"accumulator"}): "Adagrad",
        frozenset({"accumulated_grad", "accumulated_delta_var"}): "Adadelta",
    }
    return known.get(frozenset(set(slot_names.values()) - set(_NOT_ITS_OWN)))


def _skipped(census: Census, notes: list[str]) -> int | None:
    """Steps without an update because of loss scaling: outer minus inner steps, or the halvings of the scale.

    The scale starts at 2^15 and is halved whenever a step is skipped; Keras counts skipped steps in neither counter when
    the optimizer was wrapped by hand.
    """
    outer, inner = census.iterations, census.scalars.get("inner_iterations")
    if inner is None or outer is None or not abs(inner) < 2**62:
        return None
    counted = max(outer - int(inner), 0)
    scale = census.scalars.get("loss_scale")
    halvings = round(math.log2(_INITIAL_SCALE / scale)) if scale is not None and 0 < scale < _INITIAL_SCALE else 0
    if halvings > counted:
        notes.append(
            f"the loss scale fell from its default 32,768 to {scale:g}: at least {halvings} steps were skipped"
        )
    return max(counted, halvings)


_INITIAL_SCALE = 2.0**15


def _steps(census: Census) -> int | None:
    """Updates that were really applied: with loss scaling the inner optimizer's count."""
    inner = census.scalars.get("inner_iterations")
    if inner is not None and 0 <= inner < 2**62:
        return int(inner)
    return census.iterations


def _learning_rate(census: Census, configured: OptimizerSpec | None, steps: int | None) -> tuple[float | Missing, str]:
    """The rate in force and where it comes from."""
    if "learning_rate" in census.scalars:
        return float(census.scalars["learning_rate"]), "stored in the checkpoint"
    if configured is None:
        return Missing("the checkpoint holds no learning rate and no optimizer configuration"), "unknown"
    if configured.schedule is not None:
        name = str(configured.schedule.get("class_name"))[:80]
        if steps is None or steps < 0:
            return Missing(f"{name} sets it, but the checkpoint holds no iteration count"), f"schedule {name}"
        value = learning_rate_at(configured.schedule, steps)
        if value is None:
            return Missing(f"{name} sets it, which is not a schedule that can be evaluated here"), f"schedule {name}"
        return value, f"schedule {name} at step {steps}"
    rate = configured.learning_rate
    if isinstance(rate, Missing):
        return rate, "unknown"
    decay = number(configured.config.get("decay"))
    if decay and steps is not None and 1.0 + decay * steps > 0:  # optimizers of Keras 2 before 2.11
        return rate / (1.0 + decay * steps), f"configured, with decay {decay:g} at step {steps}"
    return rate, "configured"


def _last_rate(rate: float | Missing, configured: OptimizerSpec | None, steps: int | None) -> float | None:
    """The rate of the last update: a schedule is evaluated before the step is counted."""
    if configured is not None and configured.schedule is not None and steps and isinstance(rate, float):
        before = learning_rate_at(configured.schedule, steps - 1)
        return rate if before is None else before
    return rate if isinstance(rate, float) else None


@dataclass(frozen=True, slots=True)
class _Constants:
    """An optimizer's constants, Keras' defaults where nothing is configured."""

    class_name: str | None
    spec: OptimizerSpec | None
    steps: int | None
    rate: float | None

    def get(self, key: str, default: float) -> float:
        found = number(self.spec.config.get(key)) if self.spec is not None else None
        return default if found is None else found

    @property
    def second(self) -> str | None:
        return _SECOND.get(self.class_name or "")

    def correction(self, key: str, default: float) -> float:
        """1 - βᵗ, the share of a running mean that is not its start from zero; 1 where t is unknown."""
        beta = self.get(key, default)
        if self.steps is None or self.steps <= 0 or not 0 <= beta < 1:
            return 1.0
        return float(-math.expm1(self.steps * math.log(beta))) if beta else 1.0


def _gradients(
    census: Census,
    names: Mapping[str, str],
    order: Order,
    constants: _Constants,
    checkpoint: Checkpoint | None,
    notes: list[str],
) -> tuple[GradientScale, ...]:
    slots: dict[str, dict[str, TensorStats]] = {}
    loose = 0
    for t in census.of_role(Role.SLOT):
        if t.info.slot_of is None:
            loose += 1
        else:
            slots.setdefault(t.info.slot_of, {})[names[t.info.path]] = t
    if loose:
        notes.append(f"{loose} optimizer slots could not be assigned to a weight")
    meter = UpdateMeter(checkpoint) if checkpoint is not None and constants.class_name in _ELEMENTWISE else None
    found: list[tuple[tuple[int, int], GradientScale]] = []
    for weight in census.of_role(Role.WEIGHT):
        mine = slots.get(weight.info.path)
        if mine:
            found.append((order.rank(weight.info.layer), _scale(weight, mine, constants, meter)))
    found.sort(key=lambda pair: pair[0])
    if any(scale.update_ratio is not None for _, scale in found):
        notes.extend(_notes(constants, meter, remembers="momentum" in names.values()))
    return tuple(scale for _, scale in found)


def _notes(constants: _Constants, meter: UpdateMeter | None, *, remembers: bool) -> Iterator[str]:
    """How far the update ratios can be trusted."""
    name = constants.class_name
    if name in _ELEMENTWISE and meter is None:
        yield "update ratios are estimated from the rms of the slots, not computed entry by entry"
    if meter is not None and meter.sampled:
        yield "update ratios of large weights come from evenly spaced samples"
    if name in ("RMSprop", "Adagrad", "Adadelta") and not remembers:
        yield f"{name} does not keep the last gradient: update ratios assume one of the usual size"
    if name == "Nadam":
        yield "Nadam's look-ahead is left out of the update ratios: within the first steps they are too large"
    if name == "Adamax":
        yield "Adamax keeps the largest gradients, not their mean: gradient scales are upper bounds"


_ELEMENTWISE = ("Adam", "AdamW", "Nadam", "Adamax")
"""Optimizers whose last update follows entry by entry from two slots."""


def _scale(
    weight: TensorStats, slots: Mapping[str, TensorStats], constants: _Constants, meter: UpdateMeter | None
) -> GradientScale:
    first = slots.get("momentum")
    size = _update_rms(weight, slots, constants, meter)
    quantised = weight.info.dtype.startswith(("int", "uint"))  # stored without its scale
    comparable = (
        size is not None and weight.rms is not None and weight.rms > 0 and math.isfinite(size) and not quantised
    )
    return GradientScale(
        path=weight.info.path,
        layer=weight.info.layer,
        variable=weight.info.variable,
        gradient_rms=_gradient_rms(slots, constants),
        momentum_rms=first.rms if first is not None else None,
        update_ratio=size / weight.rms if comparable and size is not None and weight.rms else None,
        weight_rms=weight.rms,
    )


def _gradient_rms(slots: Mapping[str, TensorStats], constants: _Constants) -> float | None:
    second = slots.get(constants.second or "")
    if second is None or second.mean is None or constants.steps == 0:
        return None
    mean = max(second.mean, 0.0)
    if constants.class_name == "Adamax":
        return second.rms
    if constants.class_name == "Adagrad":
        start = constants.get("initial_accumulator_value", 0.1)
        return math.sqrt(max(mean - start, 0.0) / constants.steps) if constants.steps else None
    if constants.class_name in ("RMSprop", "Adadelta"):
        return math.sqrt(mean / constants.correction("rho", 0.9 if constants.class_name == "RMSprop" else 0.95))
    return math.sqrt(mean / constants.correction("beta_2", 0.999))


def _update_rms(
    weight: TensorStats, slots: Mapping[str, TensorStats], constants: _Constants, meter: UpdateMeter | None
) -> float | None:
    """Root mean square of the last update of a weight, None where the optimizer does not tell."""
    rate, name = constants.rate, constants.class_name
    if rate is None or not math.isfinite(rate) or constants.steps == 0:
        return None
    first, second = slots.get("momentum"), slots.get(constants.second or "")
    if name == "SGD":  # the momentum slot is the update itself (without Nesterov's look-ahead)
        return first.rms if first is not None else None
    if name in ("Lion", "Lamb"):  # sign, and trust ratio: as large as the rate by construction
        return abs(rate) if name == "Lion" else abs(rate) * (weight.rms or 0.0)
    if name == "RMSprop" and first is not None:
        return first.rms
    if second is None or second.mean is None or second.mean < 0:
        return None
    epsilon = constants.get("epsilon", 1e-7)
    if name == "RMSprop":
        return abs(rate) * math.sqrt(second.mean / (second.mean + epsilon)) if second.mean else 0.0
    if name == "Adagrad":
        gradient = _gradient_rms(slots, constants)
        return None if gradient is None else abs(rate) * gradient / math.sqrt(second.mean + epsilon)
    if name == "Adadelta":
        delta = slots.get("accumulated_delta_var")
        return abs(rate) * math.sqrt(max(delta.mean, 0.0)) if delta is not None and delta.mean is not None else None
    if name not in _ELEMENTWISE or first is None or first.rms is None:
        return None
    moments = Moments(
        rate=abs(rate) / constants.correction("beta_1", 0.9),
        root=name != "Adamax",
        second_factor=1.0 if name == "Adamax" else math.sqrt(constants.correction("beta_2", 0.999)),
        epsilon=epsilon,
    )
    measured = meter.update_rms(first.info.path, second.info.path, moments) if meter is not None else None
    return moments.estimate(first.rms, second.mean) if measured is None else measured


def _profile(gradients: tuple[GradientScale, ...]) -> float | None:
    """Gradient scale of the first kernel over that of the last one."""
    kernels = [
        g.gradient_rms
        for g in gradients
        if g.gradient_rms is not None and "kernel" in g.variable and "recurrent" not in g.variable
    ]
    if len(kernels) < 2 or not kernels[-1]:
        return None
    return kernels[0] / kernels[-1]


def _is_untouched(t: TensorStats, names: Mapping[str, str]) -> bool:
    """All zero, or Adagrad's accumulator still at one starting value."""
    if t.error is not None or t.nonfinite:
        return False
    return t.zeros >= t.info.size or (names[t.info.path] == "accumulator" and t.min == t.max)
