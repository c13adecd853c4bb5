"""Device and versions: what the replay ran on.

The GPU branch follows TensorFlow's documented interface; it has not been run on a machine with a GPU.
"""

from __future__ import annotations

import os
import platform

import numpy as np
import tensorflow as tf

from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.failure import UsageError


def choose_device(wanted: str) -> str:
    """The TensorFlow device to run on; makes only that one visible.

    Args:
        wanted: `auto`, `cpu`, `gpu` or `gpu:N`.

    Raises:
        UsageError: a GPU was asked for that TensorFlow does not see.
    """
    gpus = [] if wanted == "cpu" else tf.config.list_physical_devices("GPU")
    if wanted.startswith("gpu"):
        index = int(wanted[4:]) if ":" in wanted else 0
        if index >= len(gpus):
            seen = f"TensorFlow sees {len(gpus)} GPU(s)" if gpus else "TensorFlow sees none"
            raise UsageError(f"--device {wanted} asks for a GPU that is not there: {seen}; use --device cpu or auto")
        gpus = [gpus[index]]
    if not gpus:
        if wanted == "cpu":
            tf.config.set_visible_devices([], "GPU")
        return "CPU:0"
    tf.config.set_visible_devices(gpus[:1], "GPU")
    tf.config.experimental.set_memory_growth(gpus[0], True)
    return "GPU:0"


def settle() -> None:
    """Deterministic ops, no XLA, no TF32; two threads an op, so that a workstation stays usable."""
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_jit(False)
    tf.config.experimental.enable_tensor_float_32_execution(False)


def describe(dialect: Dialect, device: str, policy: str) -> dict[str, str]:
    """Versions and modes, for the report."""
    return {
        "tensorflow": str(tf.__version__),
        "keras": dialect.version + (" (tf_keras)" if dialect.legacy else ""),
        "numpy": str(np.__version__),
        "python": platform.python_version(),
        "device": device,
        "precision": policy,
        "tf32": "off",
        "xla": "off",
        "onednn": "on" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1" else "off",
        "determinism": "on",
    }
