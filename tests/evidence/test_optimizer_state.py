"""What the optimizer remembers, compared with what its gradients and updates really were."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from handmade import census, checkpoint, info, stats

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.evidence.census import take_census
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.evidence.optimizer import optimizer_state
from ckptdoctor.evidence.updates import WHOLE, Moments, UpdateMeter
from ckptdoctor.model import CheckpointInfo, GradientScale, Missing, OptimizerState, Role

FIXTURES = Path(__file__).parents[2] / "fixtures/optimizers"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
NO_SPEC = Missing("no configuration")
TRUE_GRADIENTS = ("adam", "adamw", "lamb", "nadam", "rmsprop", "rmsprop_momentum", "adagrad", "adadelta")
TRUE_UPDATES = ("adam", "adamw", "adamax", "rmsprop_momentum", "sgd_momentum", "lion")


def state_of(name: str, *, entry_by_entry: bool = True) -> OptimizerState:
    with open_checkpoint(FIXTURES / f"{name}.keras") as opened:
        measured = take_census(opened)
        found = optimizer_state(measured, read_spec(opened.info), opened if entry_by_entry else None)
    assert isinstance(found, OptimizerState)
    return found


def by_name(state: OptimizerState) -> dict[str, GradientScale]:
    return {f"{g.layer}/{g.variable}": g for g in state.gradients}


def truth(name: str) -> dict[str, dict[str, float]]:
    return {"/".join(path.split("/")[-2:]): value for path, value in EXPECTED[name].items()}


@pytest.mark.parametrize("name", TRUE_GRADIENTS)
def test_gradient_scales_are_those_of_the_recorded_gradients(name: str) -> None:
    found = by_name(state_of(name))
    for weight, real in truth(name).items():
        assert found[weight].gradient_rms == pytest.approx(real["gradient"], rel=1e-4)


def test_adamax_gives_an_upper_bound() -> None:
    state = state_of("adamax")
    for weight, real in truth("adamax").items():
        assert real["gradient"] <= (by_name(state)[weight].gradient_rms or 0) <= 3 * real["gradient"]
    assert any("upper bounds" in note for note in state.notes)


@pytest.mark.parametrize("name", TRUE_UPDATES)
def test_update_ratios_are_those_of_the_last_update(name: str) -> None:
    found = by_name(state_of(name))
    for weight, real in truth(name).items():
        assert found[weight].update_ratio == pytest.approx(real["update"] / real["weight"], rel=1e-4)


def test_lamb_updates_are_as_large_as_its_rate() -> None:
    for weight, real in truth("lamb").items():
        assert by_name(state_of("lamb"))[weight].update_ratio == pytest.approx(
            real["update"] / real["weight"], rel=0.01
        )


@pytest.mark.parametrize("name", ["rmsprop", "adagrad", "adadelta", "nadam"])
def test_where_the_last_gradient_is_not_kept_the_ratio_is_an_estimate_and_says_so(name: str) -> None:
    state = state_of(name)
    for weight, real in truth(name).items():
        assert 0.1 < (by_name(state)[weight].update_ratio or 0) / (real["update"] / real["weight"]) < 10
    assert state.notes


def test_without_the_checkpoint_ratios_are_estimated_and_labelled() -> None:
    state = state_of("adam", entry_by_entry=False)
    for weight, real in truth("adam").items():
        assert by_name(state)[weight].update_ratio == pytest.approx(real["update"] / real["weight"], rel=0.3)
    assert any("estimated from the rms" in note for note in state.notes)
    assert not state_of("adam").notes


def test_plain_sgd_remembers_nothing() -> None:
    state = state_of("sgd")
    assert (state.class_name, state.iterations, state.gradients, state.profile_ratio) == ("SGD", 5, (), None)
    assert not state.untouched_slots


def test_the_profile_is_first_kernel_over_last() -> None:
    real = truth("adam")
    ratio = real["hidden/kernel"]["gradient"] / real["head/kernel"]["gradient"]
    assert state_of("adam").profile_ratio == pytest.approx(ratio, rel=1e-4)


def test_the_rate_in_force_is_the_stored_one_before_any_other() -> None:
    state = state_of("adam")
    assert state.learning_rate == pytest.approx(3e-3)
    assert state.learning_rate_source == "stored in the checkpoint"


def test_a_schedule_is_evaluated_at_the_iteration_count() -> None:
    state = state_of("adamw")
    assert state.learning_rate == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 5 / 40)))
    assert state.learning_rate_source == "schedule CosineDecay at step 5"


def with_optimizer(optimizer: object) -> CheckpointInfo:
    model = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}
    return info(model, {"optimizer": optimizer})


@pytest.mark.parametrize(
    ("config", "rate", "source"),
    [
        ({"learning_rate": math.nan}, math.nan, "configured"),
        ({"learning_rate": 0.5}, 0.5, "configured"),
        ({"lr": 0.1, "decay": 0.01}, 0.05, "configured, with decay 0.01 at step 100"),
    ],
)
def test_the_configured_rate_is_the_last_resort(config: dict, rate: float, source: str) -> None:
    spec = read_spec(with_optimizer({"class_name": "Adam", "config": config}))
    state = optimizer_state(census(scalars={"iterations": 100.0}), spec)
    assert isinstance(state, OptimizerState)
    assert state.learning_rate == pytest.approx(rate, nan_ok=True)
    assert state.learning_rate_source == source


def test_a_schedule_of_ones_own_cannot_be_evaluated() -> None:
    schedule = {"class_name": "Noam", "config": {"d": 1}}
    spec = read_spec(with_optimizer({"class_name": "Adam", "config": {"learning_rate": schedule}}))
    state = optimizer_state(census(scalars={"iterations": 100.0}), spec)
    assert isinstance(state, OptimizerState)
    assert isinstance(state.learning_rate, Missing)
    assert "Noam" in state.learning_rate.reason


def test_skipped_updates_are_outer_minus_inner_steps() -> None:
    scalars = {"iterations": 40.0, "inner_iterations": 3.0, "loss_scale": 1.0, "learning_rate": 1e-3}
    state = optimizer_state(census(scalars=scalars), NO_SPEC)
    assert isinstance(state, OptimizerState)
    assert (state.loss_scale, state.skipped_updates) == (1.0, 37)


def test_a_fallen_loss_scale_betrays_skips_that_no_counter_shows() -> None:
    state = optimizer_state(census(scalars={"iterations": 0.0, "inner_iterations": 0.0, "loss_scale": 8192.0}), NO_SPEC)
    assert isinstance(state, OptimizerState)
    assert state.skipped_updates == 2
    assert any("at least 2 steps were skipped" in note for note in state.notes)


def test_unnamed_slots_are_adams_where_only_the_second_is_never_negative() -> None:
    more = {"role": Role.SLOT, "slot_of": "d/kernel"}
    for low, name in ((0.0, "Adam"), (-1.0, None)):
        pair = (stats("o/1", slot="slot_0", **more), stats("o/2", slot="slot_1", min=low, mean=0.25, **more))
        state = optimizer_state(census(stats("d/kernel"), *pair, scalars={"iterations": 5.0}), NO_SPEC)
        assert isinstance(state, OptimizerState)
        assert state.class_name == name
        assert (state.gradients[0].gradient_rms is not None) == (name == "Adam")


def test_quantised_weights_have_no_update_ratio() -> None:
    kernel = np.ones((3, 3), "i1")
    slot = {"role": Role.SLOT, "slot_of": "d/kernel"}
    more = {f"o/{n}": {**slot, "slot": n} for n in ("momentum", "velocity")}
    arrays = {"d/kernel": kernel, **{name: np.ones((3, 3), "f4") for name in more}}
    made = checkpoint(arrays, more=more, scalars={"iterations": 5.0, "learning_rate": 0.1})
    state = optimizer_state(take_census(made), NO_SPEC, made)
    assert isinstance(state, OptimizerState)
    assert state.gradients[0].gradient_rms is not None
    assert state.gradients[0].update_ratio is None


def slots(zeros: int) -> list:
    more = {"role": Role.SLOT, "slot_of": "d/kernel"}
    return [stats("d/kernel"), *(stats(f"o/{s}", slot=s, zeros=zeros, **more) for s in ("momentum", "velocity"))]


def test_slots_that_are_all_zero_after_steps_were_never_touched() -> None:
    for zeros, steps, untouched in ((12, 5.0, True), (11, 5.0, False), (12, 0.0, False)):
        state = optimizer_state(census(*slots(zeros), scalars={"iterations": steps}), NO_SPEC)
        assert isinstance(state, OptimizerState)
        assert state.untouched_slots is untouched


def test_without_a_configuration_the_slots_name_the_class() -> None:
    state = optimizer_state(census(*slots(0), scalars={"iterations": 5.0}), NO_SPEC)
    assert isinstance(state, OptimizerState)
    assert state.class_name == "Adam"
    assert any("look like those of Adam" in note for note in state.notes)


def test_nothing_at_all_is_missing() -> None:
    assert isinstance(optimizer_state(census(stats("d/kernel")), NO_SPEC), Missing)


# --- the meter ------------------------------------------------------------------------------------

ADAM = Moments(rate=0.1, root=True, second_factor=0.5, epsilon=1e-7)


def true_rms(m: np.ndarray, v: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(0.05 * m.astype("f8") / (np.sqrt(v.astype("f8")) + 1e-7)))))


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("codes", [("f4", "f4"), ("f2", "f4")])
def test_moments_are_read_side_by_side_in_blocks(spans: bool, codes: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    m, v = rng.standard_normal((700, 301)).astype(codes[0]), rng.random((700, 301)).astype(codes[1])
    meter = UpdateMeter(checkpoint({"m": m, "v": v}, spans=spans))
    assert meter.update_rms("m", "v", ADAM) == pytest.approx(true_rms(m, v), rel=1e-9)
    assert not meter.sampled


@pytest.mark.parametrize("spans", [True, False])
def test_large_moments_are_sampled(spans: bool) -> None:
    rng = np.random.default_rng(0)
    size = WHOLE // 4 + 100_000
    m, v = rng.standard_normal(size).astype("f4"), rng.random(size).astype("f4") + np.float32(0.1)
    meter = UpdateMeter(checkpoint({"m": m, "v": v}, spans=spans))
    assert meter.update_rms("m", "v", ADAM) == pytest.approx(true_rms(m, v), rel=0.02)
    assert meter.sampled


def test_entries_without_a_finite_update_are_left_out() -> None:
    m, v = np.array([1.0, np.nan, 1.0], "f4"), np.array([1.0, 1.0, np.inf], "f4")
    assert UpdateMeter(checkpoint({"m": m, "v": v})).update_rms("m", "v", ADAM) == pytest.approx(math.sqrt(0.05**2 / 2))
    nothing = np.full(3, np.nan, "f4")
    assert UpdateMeter(checkpoint({"m": nothing, "v": v})).update_rms("m", "v", ADAM) is None


def test_slots_of_different_shape_are_not_compared() -> None:
    meter = UpdateMeter(checkpoint({"m": np.ones(3, "f4"), "v": np.ones(4, "f4")}))
    assert meter.update_rms("m", "v", ADAM) is None
    assert meter.update_rms("m", "absent", ADAM) is None
