"""Optimizers and losses in every form that `compile` accepts and Keras saves."""

from __future__ import annotations

import math
from typing import Any

import pytest
from handmade import info

from ckptdoctor.evidence.compilation import read_compile, read_optimizer
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.model import CompileSpec, LossSpec, Missing, ModelSpec, OptimizerSpec


def compiled(config: dict[str, Any], outputs: tuple[str, ...] = ("out",)) -> CompileSpec:
    found = read_compile(config, outputs)
    assert isinstance(found, CompileSpec)
    return found


def losses(loss: Any, *outputs: str) -> list[tuple[str | None, str, bool, bool]]:
    found: tuple[LossSpec, ...] = compiled({"loss": loss}, outputs or ("out",)).losses
    return [(entry.output, entry.name, entry.custom, entry.from_logits) for entry in found]


def optimizer(serialized: Any) -> OptimizerSpec:
    found = read_optimizer(serialized)
    assert isinstance(found, OptimizerSpec)
    return found


def wrapped_function(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mse", "mean_squared_error"),
        ("MSE", "mean_squared_error"),
        ("MeanSquaredError", "mean_squared_error"),
        ("mae", "mean_absolute_error"),
        ("mape", "mean_absolute_percentage_error"),
        ("msle", "mean_squared_logarithmic_error"),
        ("bce", "binary_crossentropy"),
        ("BinaryCrossentropy", "binary_crossentropy"),
        ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"),
        ("kld", "kl_divergence"),
        ("KLDivergence", "kl_divergence"),
        ("kullback_leibler_divergence", "kl_divergence"),
        ("LogCosh", "log_cosh"),
        ("logcosh", "log_cosh"),
        ("Huber", "huber"),
        ("CTC", "ctc"),
        ("CategoricalFocalCrossentropy", "categorical_focal_crossentropy"),
        ("squared_hinge", "squared_hinge"),
        ("keras>Poisson", "poisson"),
    ],
)
def test_aliases_of_losses_have_one_canonical_name(alias: str, name: str) -> None:
    assert losses(alias) == [(None, name, False, False)]


def test_a_loss_object_tells_whether_it_takes_logits() -> None:
    config = {"from_logits": True, "label_smoothing": 0.1, "name": "bce"}
    loss = {"module": "keras.losses", "class_name": "BinaryCrossentropy", "config": config}
    assert losses(loss) == [(None, "binary_crossentropy", False, True)]
    assert compiled({"loss": loss}).losses[0].config["label_smoothing"] == 0.1


def test_a_bare_name_that_keras_knows_since_not_long_ago_may_be_a_function_of_ones_own() -> None:
    named = {"module": "keras.losses", "class_name": "Tversky", "config": {}, "registered_name": None}
    assert [("tversky", True)] == [(name, own) for _, name, own, _ in losses("tversky")]
    assert [("tversky", False)] == [(name, own) for _, name, own, _ in losses(named)]
    assert [("huber", False)] == [(name, own) for _, name, own, _ in losses("huber")]


def test_custom_losses_keep_their_name() -> None:
    assert losses(wrapped_function("my_loss")) == [(None, "my_loss", True, False)]
    assert losses(wrapped_function("mean_squared_error")) == [(None, "mean_squared_error", False, False)]
    assert losses("my_loss") == [(None, "my_loss", True, False)]
    assert losses({"class_name": "__lambda__", "config": {"value": ["4wIA"]}}) == [(None, "<lambda>", True, False)]
    assert losses({"class_name": "pkg>Mine", "config": {}}) == [(None, "Mine", True, False)]
    wrapper = {"class_name": "LossFunctionWrapper", "config": {"fn": wrapped_function("rmse")}}
    assert losses(wrapper) == [(None, "rmse", True, False)]


def test_several_losses_name_their_outputs() -> None:
    assert losses({"a": "mse", "b": "bce"}, "a", "b") == [
        ("a", "mean_squared_error", False, False),
        ("b", "binary_crossentropy", False, False),
    ]
    assert [entry[0] for entry in losses(["mse", "mae"], "first", "second")] == ["first", "second"]
    assert losses(["mse", None, "mae"]) == [
        ("0", "mean_squared_error", False, False),
        ("2", "mean_absolute_error", False, False),
    ]
    assert losses(["mse"]) == [(None, "mean_squared_error", False, False)]
    assert losses(None) == []


def test_metrics_have_the_names_of_the_log() -> None:
    metric = {"class_name": "MeanMetricWrapper", "config": {"name": "mae", "fn": "mean_absolute_error"}}
    assert compiled({"metrics": ["accuracy", [metric], {"out": ["auc"]}, None, 3]}).metrics == (
        "accuracy",
        "mae",
        "auc",
    )


def test_settings_of_an_optimizer() -> None:
    config = {"learning_rate": 0.1, "clipnorm": 1.0, "momentum": 0.9, "epsilon": 1e-7, "use_ema": True}
    found = optimizer({"module": "keras.optimizers", "class_name": "SGD", "config": config})
    assert (found.class_name, found.learning_rate, found.clipnorm, found.momentum) == ("SGD", 0.1, 1.0, 0.9)
    assert (found.epsilon, found.use_ema, found.clips, found.custom, found.schedule) == (1e-7, True, True, False, None)


def test_a_schedule_leaves_the_rate_missing() -> None:
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1}}
    found = optimizer({"class_name": "Custom>Adam", "config": {"learning_rate": schedule}})
    assert isinstance(found.learning_rate, Missing)
    assert (found.schedule, found.class_name, found.custom) == (schedule, "Adam", False)


@pytest.mark.parametrize("rate", [math.nan, "NaN"])
def test_a_nan_rate_is_a_rate(rate: object) -> None:
    found = optimizer({"class_name": "Adam", "config": {"learning_rate": rate}}).learning_rate
    assert isinstance(found, float)
    assert math.isnan(found)


def test_loss_scaling_is_looked_through() -> None:
    inner = {"class_name": "Adam", "config": {"learning_rate": 0.01, "global_clipnorm": 2.0}}
    found = optimizer(
        {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": inner, "initial_scale": 32768.0}}
    )
    assert (found.class_name, found.loss_scaled, found.learning_rate, found.clips) == ("Adam", True, 0.01, True)


def test_an_optimizer_by_name_has_no_recorded_rate() -> None:
    found = optimizer("rmsprop")
    assert (found.class_name, isinstance(found.learning_rate, Missing)) == ("RMSprop", True)


def test_a_custom_optimizer_is_told() -> None:
    assert optimizer({"class_name": "my>Ranger", "config": {}}).custom


def test_the_form_of_keras_2_files() -> None:
    config = {"loss": "mse", "metrics": [], "optimizer_config": {"class_name": "SGD", "config": {"lr": 0.5}}}
    found = compiled(config).optimizer
    assert isinstance(found, OptimizerSpec)
    assert found.learning_rate == 0.5


def test_a_model_that_was_never_compiled_says_so() -> None:
    model = {"class_name": "Sequential", "config": {"layers": []}}
    spec = read_spec(info(model, {}))
    assert isinstance(spec, ModelSpec)
    assert isinstance(spec.compile, Missing)
    assert "without having been compiled" in spec.compile.reason


@pytest.mark.parametrize("value", [True, False, None, "auto"])
def test_jit_compile_is_a_resolved_flag_or_unknown(value: object) -> None:
    assert compiled({"jit_compile": value}).jit_compile is (value if isinstance(value, bool) else None)
