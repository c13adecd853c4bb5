"""The pattern of non-finite entries after one bad step, on checkpoints of models that really took that step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from handmade import census, checkpoint, info, stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.evidence.census import take_census
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.evidence.fingerprint import fingerprint
from ckptdoctor.model import Census, Fingerprint, Missing, ModelSpec, Pattern, Role

FIXTURES = Path(__file__).parents[2] / "fixtures/patterns"
NO_SPEC = Missing("no configuration")


def measured(name: str) -> tuple[Census, ModelSpec | Missing]:
    with open_checkpoint(FIXTURES / f"{name}.keras") as opened:
        return take_census(opened), read_spec(opened.info)


def patterns(name: str) -> dict[str, Pattern]:
    found, spec = measured(name)
    return {p.kind: p for p in fingerprint(found, spec).patterns}


# --- every row of the table -------------------------------------------------------------------------


def test_a_swallowed_nan_feature_is_one_row_of_the_first_kernel() -> None:
    found = patterns("feature_swallowed")
    rows = found["kernel_rows"]
    assert (rows.layer, rows.variable, rows.means, rows.indices) == ("first", "kernel", "input feature", (2,))
    assert (rows.count, rows.of) == (1, 6)
    assert "input feature 2 (1 of 6)" in rows.message
    assert found["single_layer"].layer == "first"
    assert "upstream_only" not in found


def test_a_nan_feature_that_was_not_swallowed_is_everything() -> None:
    assert list(patterns("nan_input")) == ["everything"]


def test_a_nan_label_reaches_all_trainables_and_no_statistic() -> None:
    assert list(patterns("nan_label")) == ["trainables_only"]


def test_an_overflow_in_the_forward_pass_is_between_finite_and_bad_statistics() -> None:
    found = patterns("forward_overflow")["downstream_only"]
    assert found.layer == "second"
    assert "finite up to first_norm and non-finite from second_norm on" in found.message


def test_a_gradient_that_fails_on_its_way_back_spares_what_it_passed_before() -> None:
    found = patterns("backward_trap")
    assert list(found) == ["upstream_only"]
    assert found["upstream_only"].layer == "distance"
    assert "from third to second, passing distance" in found["upstream_only"].message


def test_a_squared_gradient_overflows_before_any_weight() -> None:
    found = patterns("gradient_overflow")
    assert list(found) == ["slots_only"]
    assert "a squared gradient overflowed" in found["slots_only"].message
    assert (found["slots_only"].count, found["slots_only"].of) == (10, 20)


def test_bad_embedding_rows_are_the_tokens_of_the_bad_sample() -> None:
    found = patterns("nan_embedding")["embedding_rows"]
    assert (found.layer, found.means, found.indices, found.of) == ("words", "token id", (31, 37, 41, 43), 50)


def test_bad_statistics_beside_finite_weights() -> None:
    found = patterns("statistics")["statistics_only"]
    assert (found.layer, found.variable, found.indices) == ("norm", "moving_variance", (0, 1, 2, 3, 4))


def test_frozen_layers_stay_finite() -> None:
    found = patterns("frozen")
    assert found["frozen_finite"].layer == "first"
    assert "trainables_only" in found


@pytest.mark.parametrize("name", ["nan_input-before", "nan_label-before", "frozen-before", "nan_embedding-before"])
def test_a_healthy_checkpoint_has_no_pattern(name: str) -> None:
    found, spec = measured(name)
    assert fingerprint(found, spec) == Fingerprint((), (), None, None)


def test_the_checkpoint_before_tells_how_many_steps_the_nan_had_to_spread() -> None:
    before, _ = measured("nan_label-before")
    found, spec = measured("nan_label")
    result = fingerprint(found, spec, before=before)
    assert result.steps_since == 1
    assert result.layers == ("first", "first_norm", "second", "second_norm", "head")
    assert result.first_layer == "first"


# --- by hand ------------------------------------------------------------------------------------------


def dense_chain(*names: str) -> ModelSpec:
    layers = [{"module": "keras.layers", "class_name": "Dense", "config": {"name": n, "units": 4}} for n in names]
    given = {"module": "keras.layers", "class_name": "InputLayer", "config": {"name": "in"}}
    found = read_spec(info({"class_name": "Sequential", "config": {"name": "m", "layers": [given, *layers]}}))
    assert isinstance(found, ModelSpec)
    return found


def of_arrays(arrays: dict[str, np.ndarray], spec: ModelSpec | Missing = NO_SPEC) -> dict[str, Pattern]:
    return {p.kind: p for p in fingerprint(take_census(checkpoint(arrays)), spec).patterns}


def kernel(*shape: int) -> np.ndarray:
    return np.ones(shape, "f4")


def test_all_features_bad_is_known_by_the_finite_bias() -> None:
    arrays = {"a/kernel": kernel(6, 4) * np.nan, "a/bias": kernel(4), "b/kernel": kernel(4, 4)}
    found = of_arrays(arrays, dense_chain("a", "b"))["kernel_rows"]
    assert (found.count, found.of, found.means) == (6, 6, "input feature")
    assert "its bias is finite" in found.message


def test_rows_of_a_later_kernel_are_units_of_the_layer_before() -> None:
    arrays = {"a/kernel": kernel(6, 4), "b/kernel": kernel(4, 3)}
    arrays["a/kernel"][:, 1] = np.nan
    arrays["b/kernel"][1, :] = np.nan
    found = of_arrays(arrays, dense_chain("a", "b"))
    assert (found["kernel_columns"].layer, found["kernel_columns"].indices) == ("a", (1,))
    assert (found["kernel_rows"].layer, found["kernel_rows"].means) == ("b", "unit of the layer before")


def test_without_a_configuration_a_lone_row_is_still_an_input_feature() -> None:
    arrays = {"a/kernel": kernel(6, 4), "b/kernel": kernel(4, 3)}
    arrays["a/kernel"][4, :] = np.inf
    assert of_arrays(arrays)["kernel_rows"].means == "input feature"


@pytest.mark.parametrize(("values", "word"), [([np.nan] * 3, "NaN"), ([np.inf, -np.inf, np.inf], "infinite")])
def test_infinities_alone_are_told_from_nan(values: list[float], word: str) -> None:
    arrays = {"a/kernel": kernel(3, 4), "b/kernel": kernel(4, 3)}
    arrays["a/kernel"][:, 1] = values
    assert f"a/kernel is {word} exactly for unit 1" in of_arrays(arrays)["kernel_columns"].message


@pytest.mark.parametrize(("axis", "means"), [(2, "input channel"), (3, "output channel")])
def test_channels_of_a_convolution(axis: int, means: str) -> None:
    weights = kernel(3, 3, 4, 5)
    np.moveaxis(weights, axis, 0)[3] = np.nan
    found = of_arrays({"c/kernel": weights, "d/kernel": kernel(2, 2)})["channel"]
    assert (found.means, found.indices, found.count) == (means, (3,), 1)


def test_entries_without_order_are_scattered() -> None:
    weights = kernel(6, 6)
    weights[1, 2] = weights[4, 5] = np.nan
    arrays = {"a/kernel": weights, "b/kernel": kernel(6, 6), "b/bias": kernel(6)}
    arrays["b/bias"][2] = np.inf
    found = of_arrays(arrays)
    assert list(found) == ["scattered"]
    assert (found["scattered"].count, found["scattered"].layer, found["scattered"].indices) == (3, "a", (1, 4))


def test_a_nan_learning_rate_is_named_wherever_it_stands() -> None:
    stored = fingerprint(census(stats("a/kernel"), scalars={"learning_rate": float("nan")}), NO_SPEC)
    assert [p.kind for p in stored.patterns] == ["optimizer_scalars"]
    assert "learning_rate is NaN" in stored.patterns[0].message
    model = {"class_name": "Sequential", "config": {"layers": []}}
    spec = read_spec(info(model, {"optimizer": {"class_name": "Adam", "config": {"learning_rate": float("nan")}}}))
    configured = fingerprint(census(stats("a/kernel")), spec)
    assert [p.variable for p in configured.patterns] == ["learning_rate"]


def test_upstream_needs_every_variable_of_the_bad_layers() -> None:
    arrays = {f"{n}/{v}": kernel(4, 4) if v == "kernel" else kernel(4) for n in "abc" for v in ("kernel", "bias")}
    for name in ("a/kernel", "a/bias", "b/kernel", "b/bias"):
        arrays[name] *= np.nan
    assert of_arrays(arrays, dense_chain("a", "b", "c"))["upstream_only"].layer == "b"
    arrays["b/bias"] = kernel(4)
    assert "upstream_only" not in of_arrays(arrays, dense_chain("a", "b", "c"))


def test_bad_layers_behind_healthy_ones_are_not_upstream() -> None:
    arrays = {f"{n}/kernel": kernel(4, 4) for n in "abc"}
    arrays["b/kernel"] *= np.nan
    assert "upstream_only" not in of_arrays(arrays, dense_chain("a", "b", "c"))


def test_slots_are_only_slots_while_every_weight_is_finite() -> None:
    slot = {"role": Role.SLOT, "slot": "velocity", "slot_of": "a/kernel"}
    alone = fingerprint(census(stats("a/kernel"), stats("o/v", posinf=3, **slot)), NO_SPEC)
    assert [p.kind for p in alone.patterns] == ["slots_only"]
    beside = fingerprint(census(stats("a/kernel", nan=2), stats("o/v", nan=3, **slot)), NO_SPEC)
    assert "slots_only" not in [p.kind for p in beside.patterns]


def test_a_tensor_that_could_not_be_read_is_no_pattern() -> None:
    assert fingerprint(census(stats("a/kernel", error="damaged")), NO_SPEC).patterns == ()


@pytest.mark.parametrize(
    "sick", [range(3000), range(1500), range(0, 3000, 2)], ids=["all", "first half", "every other"]
)
def test_a_model_of_thousands_of_layers_is_judged_in_time(sick: range) -> None:
    names = [f"d{i}" for i in range(3000)]
    tensors = [stats(f"{n}/{v}", nan=12 if i in sick else 0) for i, n in enumerate(names) for v in ("kernel", "bias")]
    started = time.perf_counter()
    result = fingerprint(census(*tensors), dense_chain(*names))
    assert len(result.layers) == len(sick)
    assert time.perf_counter() - started < 10


@settings(max_examples=100, deadline=None)
@given(data=st.data(), known=st.booleans())
def test_any_set_of_bad_tensors_gives_a_fingerprint(data: st.DataObject, known: bool) -> None:
    """Whatever is bad is named: no pattern only where nothing is."""
    names = ["a/kernel", "a/bias", "b/embeddings", "n/gamma", "n/moving_mean", "n/moving_variance", "c/kernel"]
    arrays = {}
    for name in names:
        shape = (4, 3) if name.endswith(("kernel", "embeddings")) else (3,)
        bad = data.draw(st.sampled_from(["none", "all", "row", "one"]))
        array = np.ones(shape, "f4")
        if bad == "all":
            array[:] = np.nan
        elif bad == "row":
            array[1] = np.inf
        elif bad == "one":
            array.flat[2] = np.nan
        arrays[name] = array
    roles = dict.fromkeys(("n/moving_mean", "n/moving_variance"), Role.STATISTIC)
    found = take_census(checkpoint(arrays, roles=roles))
    result = fingerprint(found, dense_chain("a", "b", "n", "c") if known else NO_SPEC)
    assert bool(result.patterns) == bool(found.nonfinite)
    assert set(result.layers) == {t.info.layer for t in found.tensors if t.nonfinite}
    assert (result.first_layer is not None) == (known and bool(found.nonfinite))
