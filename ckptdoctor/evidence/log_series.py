"""Which series of a training log is which: losses, accuracies, rates and norms by the names that programs give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ckptdoctor.model import Series, TrainingLog

_VALIDATION = re.compile(
    r"^(?:val|validation|valid|eval|evaluation|test|dev)[_/. ]|[_/. ](?:val|validation|valid|eval|test)$|_vs_iterations$",
    re.IGNORECASE,
)
_LOSS = re.compile(r"(?:^|[_/. ])(?:loss|nll|elbo)(?:$|[_/. ])|loss$", re.IGNORECASE)
_NOT_LOSS = re.compile(r"loss_?scale|lossscale", re.IGNORECASE)
_ACCURACY = re.compile(r"(?:^|[_/. ])(?:[a-z_]*accuracy|acc)$|^(?:accuracy|acc)(?:[_/. ]|$)", re.IGNORECASE)
_RATE = re.compile(r"(?:^|[_/. ])(?:lr|learning_?rate)(?:[_/. -]|$)", re.IGNORECASE)
_GRADIENT = re.compile(
    r"grad(?:ient)?s?[_/. ]?(?:global_?)?norm|global_?norm|norm_?(?:of_?)?grad|^gnorm$", re.IGNORECASE
)
_SCALE = re.compile(r"loss_?scale", re.IGNORECASE)

# best first: the value of an epoch, before running values, before the losses of single outputs
_LOSS_NAMES = (
    "loss",
    "epoch_loss",
    "train_loss",
    "train/loss",
    "training_loss",
    "loss/train",
    "train/epoch_loss",
    "total_loss",
)
_BATCH_LOSS_NAMES = ("batch_loss", "step_loss", "train_loss_step", "loss_step")


def is_validation_name(name: str) -> bool:
    """Whether a series is measured on held-out data."""
    return bool(_VALIDATION.search(name))


def is_loss_name(name: str) -> bool:
    """Whether a series is a loss, of training or validation."""
    return bool(_LOSS.search(name)) and not _NOT_LOSS.search(name)


def loss_series(log: TrainingLog) -> Series | None:
    """The training loss: by epoch if the log has it so, else by step."""
    return _pick(
        log, _LOSS_NAMES, lambda n: is_loss_name(n) and n.lower() not in _BATCH_LOSS_NAMES
    ) or batch_loss_series(log)


def batch_loss_series(log: TrainingLog) -> Series | None:
    """The training loss within epochs; a running average where `log.running_average` says so."""
    found = _pick(log, _BATCH_LOSS_NAMES, lambda n: n.lower() in _BATCH_LOSS_NAMES)
    if found is not None:
        return found
    named = _pick(log, _LOSS_NAMES, is_loss_name)
    return named if named is not None and named.axis == "step" else None


def validation_loss_series(log: TrainingLog) -> Series | None:
    """The validation loss."""
    names = (
        "val_loss",
        "validation/epoch_loss",
        "validation/loss",
        "val/loss",
        "eval/loss",
        "eval_loss",
        "valid_loss",
        "test_loss",
    )
    return _pick(log, names, is_loss_name, validation=True)


def accuracy_series(log: TrainingLog) -> Series | None:
    """The training accuracy, of whatever kind (`accuracy`, `sparse_categorical_accuracy`, `acc`, …)."""
    names = ("accuracy", "acc", "epoch_accuracy", "epoch_acc", "train/accuracy", "train_accuracy")
    return _pick(log, names, lambda n: bool(_ACCURACY.search(n)))


def validation_accuracy_series(log: TrainingLog) -> Series | None:
    """The validation accuracy."""
    names = ("val_accuracy", "val_acc", "validation/epoch_accuracy", "val/accuracy", "eval/accuracy", "eval_accuracy")
    return _pick(log, names, lambda n: bool(_ACCURACY.search(n)), validation=True)


def learning_rate_series(log: TrainingLog) -> Series | None:
    """The learning rate."""
    names = ("learning_rate", "lr", "epoch_learning_rate", "epoch_lr", "train/learning_rate")
    return _pick(log, names, lambda n: bool(_RATE.search(n)))


def gradient_norm_series(log: TrainingLog) -> Series | None:
    """The norm of all gradients together."""
    return _pick(
        log, ("grad_norm", "gradient_norm", "train/grad_norm", "global_norm"), lambda n: bool(_GRADIENT.search(n))
    )


def loss_scale_series(log: TrainingLog) -> Series | None:
    """The dynamic loss scale."""
    return _pick(log, ("loss_scale",), lambda n: bool(_SCALE.search(n)))


def _pick(
    log: TrainingLog, names: Sequence[str], test: Callable[[str], bool], *, validation: bool = False
) -> Series | None:
    """By exact name, best first; else the first series that passes the test on the right side of the split."""
    by_name = {s.name.lower(): s for s in log.series}
    for name in names:
        if name in by_name:
            return by_name[name]
    fitting = [s for s in log.series if is_validation_name(s.name) is validation and test(s.name)]
    return min(fitting, key=lambda s: (s.axis != "epoch", len(s.name)), default=None)
