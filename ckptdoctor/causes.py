"""The causes in words: what each means, how it is told from its neighbours, how it is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptdoctor.model import Cause


@dataclass(frozen=True, slots=True)
class CauseDoc:
    """A cause for people.

    Attributes:
        title: a few words. plain: one or two sentences. how_to_tell: what separates it from its neighbours.
        how_to_fix: the usual remedy. decide: the one measurement that would decide where evidence is short.
    """

    title: str
    plain: str
    how_to_tell: str
    how_to_fix: str
    decide: str


CAUSE_DOCS: Mapping[Cause, CauseDoc] = {
    Cause.DATA_NONFINITE: CauseDoc(
        "NaN or infinity in the data",
        "A value that is not a number came in with the inputs, the targets or the sample weights.",
        "The recorded batch holds it; the first kernel is NaN in exactly the rows of the bad input features, or all "
        "weights are NaN while all BatchNormalization statistics are finite (a NaN target). Only removing or repairing "
        "the rows helps; no learning rate does.",
        "Find where the pipeline makes it (division by zero, log of zero, missing cells) and repair or drop those rows; "
        "check with `np.isfinite(x).all()` before training. Continue from a checkpoint from before the bad batch.",
        "the last batches as the step saw them (`x` and `y` of the failing step)",
    ),
    Cause.DATA_SCALE: CauseDoc(
        "Inputs or targets on the wrong scale",
        "Features or targets are so large, or of such different sizes, that ordinary steps overshoot or units saturate.",
        "Standardising makes the model learn; a smaller learning rate or clipping at most makes it finite.",
        "Standardise: a `Normalization` layer adapted on the training set, or `(x - mean) / std`; scale regression "
        "targets too and invert the scaling when predicting.",
        "recorded batches, to see the features' scales and whether standardising them heals the run",
    ),
    Cause.LABELS: CauseDoc(
        "Labels that do not fit",
        "Targets are out of range, wrongly encoded, or do not belong to their inputs.",
        "Class ids outside 0…C-1, targets outside what loss and head can express, or inputs that do not predict the "
        "targets at all although everything is numerically normal.",
        "Shift ids to 0…C-1, match the encoding to the loss (ids: sparse_categorical_crossentropy, one-hot: "
        "categorical_crossentropy), shuffle inputs and targets with the same permutation.",
        "recorded targets, to compare their range and encoding with the head and the loss",
    ),
    Cause.LEARNING_RATE: CauseDoc(
        "Learning rate out of range",
        "Steps are too large, so the loss climbs or oscillates until it overflows; or too small, so nothing is learned.",
        "The rate is far from the optimizer's usual range while the data's scale is ordinary; a smaller (or larger) rate "
        "makes the model learn; clipping often only makes it finite.",
        "Change the rate to the value the experiment found (for Adam 1e-4 to 1e-2, for SGD 1e-3 to 1e-1 on standardised "
        "data are usual); add a warm-up if the first steps fail.",
        "the learning rate in force and the last batches, to try other rates",
    ),
    Cause.EXPLODING_GRADIENTS: CauseDoc(
        "Exploding gradients",
        "Gradients grow along the depth or the time steps until an update is too large.",
        "Both a smaller rate and clipping heal it, standardising inputs does not; gradient norms grow from the output "
        "towards the input, or along the recurrence.",
        "Clip by global norm (`global_clipnorm=1.0`), use gated recurrent layers or an orthogonal recurrent kernel, "
        "normalisation layers or residual connections.",
        "gradient norms per step, or the last batches to measure them",
    ),
    Cause.VANISHING_GRADIENTS: CauseDoc(
        "Vanishing gradients",
        "Gradients shrink on their way to the first layers, which therefore do not learn.",
        "Always finite: the loss sits near the value of a constant prediction, the first layers hardly move while the "
        "last ones do; sigmoid or tanh in a deep stack.",
        "Use relu-like activations with He initialisation, normalisation layers or residual connections, fewer layers.",
        "checkpoints of two epochs or the last batches, to see which layers receive gradients",
    ),
    Cause.ACTIVATION: CauseDoc(
        "Activation that does not fit",
        "An activation overflows, dies, saturates, or cannot produce the targets.",
        "Exchanging that one activation heals; units are dead (exactly 0) or saturated; the output's range does not "
        "contain the targets (softmax over one unit, relu for negative targets).",
        "Match the output activation to targets and loss (one unit: sigmoid with binary_crossentropy; C classes: "
        "softmax; regression: linear); use relu or gelu in hidden layers.",
        "the configuration and the last batches, to see the ranges of activations",
    ),
    Cause.LOSS_FUNCTION: CauseDoc(
        "Loss function at fault",
        "The loss has a formula that divides by zero, takes log or sqrt at zero, or does not fit head and targets.",
        "None of learning rate, clipping, scaling or dropping rows heals; the loss (or only its gradient) is the first "
        "non-finite value; or it grows negative without bound.",
        "Use the stable built-in form (`from_logits=True` with a linear head), add an epsilon inside sqrt, log and "
        "division, guard both branches of `where`; choose the loss that fits the targets.",
        "the loss's code (`--custom-objects`) and the last batches",
    ),
    Cause.MIXED_PRECISION: CauseDoc(
        "Half precision",
        "float16 overflowed or underflowed: its largest number is 65,504, its smallest normal one 6e-5.",
        "float32 heals, clipping never does; float16 without loss scaling; an epsilon of 1e-7 that is 0 in float16; a "
        "collapsed loss scale.",
        "Use `mixed_float16` as the global policy (then Keras scales the loss) or `mixed_bfloat16`, keep softmax and the "
        "loss in float32, set epsilons to 1e-4 or more in float16.",
        "the dtype policy in the configuration and a replay in float32",
    ),
    Cause.OPTIMIZER: CauseDoc(
        "Optimizer at fault",
        "The optimizer's own settings or state break the run: epsilon, momentum, decay, a corrupted slot, no adaptivity.",
        "Another optimizer or setting heals at the same learning rate; slots are bad before weights are.",
        "Use the suggested setting or optimizer; drop the optimizer's state (`compile` again) when its slots are corrupt.",
        "a checkpoint with the optimizer's state and the last batches",
    ),
    Cause.INITIALIZATION: CauseDoc(
        "Initial weights at fault",
        "The weights before training were constant, zero, or far too large or small for the depth.",
        "The state at step 0 shows it: identical units, or scales far from the initialiser that suits the layer.",
        "Use `glorot_uniform` (or `he_normal` before relu); never a constant for kernels; load pre-trained weights into "
        "every layer they were meant for.",
        "the checkpoint from before the first step",
    ),
    Cause.ARCHITECTURE: CauseDoc(
        "Architecture at fault",
        "The model's shape prevents learning or breaks the numbers: missing normalisation, BatchNormalization over one "
        "element, a bottleneck, no non-linearity.",
        "Neither data, rate nor loss form heals; changing the structure at the named layer does.",
        "Change the named layer as advised.",
        "the configuration and the last batches",
    ),
    Cause.HEALTHY: CauseDoc(
        "Nothing wrong",
        "No sign of a failure in what was examined.",
        "Everything stored is finite, and where a log or batches exist the run learns.",
        "Nothing to fix.",
        "",
    ),
    Cause.UNKNOWN: CauseDoc(
        "Unknown",
        "Something failed, but what is left does not tell why.",
        "No cause stands out from the others by the evidence at hand.",
        "Record the measurement named in the report and inspect again.",
        "the last batches and a checkpoint from before the failure (the flight recorder keeps both)",
    ),
}
