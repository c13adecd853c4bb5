"""Scores and figures from truths and documents that are small enough to check by hand."""

import math

import pytest

from tests.evaluation.scoring import (
    PHASES,
    CaseScore,
    calibration_error,
    confusions,
    reliability,
    removal_flips,
    renamed_differs,
    replay_totals,
    same_layer,
    score,
    share,
    totals,
)


def truth(**changes):
    document = {
        "category": "labels",
        "also_acceptable": ["loss_function"],
        "faulty_layer": "out",
        "half": "a",
        "observed": "nan_weights",
        "fix_verified": True,
        "buggy": {"first_bad": {"epoch": 3, "batch": 1, "step": 22}, "nanw": True},
    }
    return document | changes


HEALTHY = truth(
    category="healthy",
    also_acceptable=[],
    faulty_layer=None,
    observed="finite",
    buggy={"first_bad": None, "nanw": False},
)


def document(cause="labels", status="sick", confidence=0.9, layer="out", **changes):
    result = {
        "verdict": {"status": status, "cause": cause, "grade": "likely", "confidence": confidence},
        "origin": {"layer": layer},
        "timeline": {
            "checkpoints": [{"path": f"run/checkpoints/epoch_{n:03d}.keras"} for n in (0, 1, 2, 5, 6)],
            "last_healthy": "run/checkpoints/epoch_002.keras",
            "first_bad": "run/checkpoints/epoch_005.keras",
        },
        "replay": None,
    }
    return result | changes


def experiment(cause, *, removes=None, learns=None):
    return {"cause": cause, "removes_failure": removes, "learns": learns}


def replay(*experiments, status="reproduced"):
    return {"status": status, "experiments": list(experiments)}


def test_the_truths_cause_is_right_and_exact():
    s = score("case", truth(), document())
    assert (s.cause_right, s.exact, s.status_right, s.right) == (True, True, True, True)


def test_an_accepted_alternative_is_right_but_not_exact():
    s = score("case", truth(), document("loss_function"))
    assert (s.cause_right, s.exact) == (True, False)


@pytest.mark.parametrize("cause", ["optimizer", "unknown", "healthy"])
def test_another_cause_is_wrong(cause):
    assert score("case", truth(), document(cause)).right is False


def test_healthy_runs_are_right_unless_called_sick():
    assert score("case", HEALTHY, document("healthy", "healthy")).right is True
    alarm = score("case", HEALTHY, document("labels", "sick"))
    assert (alarm.false_alarm, alarm.right, alarm.cause_right, alarm.layer_right) == (True, False, None, None)


@pytest.mark.parametrize(
    ("named", "right"), [("out", True), ("encoder/out", True), ("h1", False), ("layout", False), (None, False)]
)
def test_layer_names_may_be_nested(named, right):
    assert same_layer(named, "out") is right
    assert score("case", truth(), document(layer=named)).layer_right is right


def test_no_layer_is_asked_for_where_the_truth_names_none():
    assert score("case", truth(faulty_layer=None), document()).layer_right is None


@pytest.mark.parametrize(
    ("experiments", "found"),
    [
        ([experiment("labels", removes=True)], True),
        ([experiment("loss_function", removes=True, learns=False)], True),
        ([experiment("labels", removes=False, learns=True)], False),
        ([experiment("optimizer", removes=True)], False),
        ([experiment("labels", removes=None)], False),
    ],
)
def test_for_a_nan_the_fix_must_remove_the_failure_and_be_of_an_accepted_cause(experiments, found):
    s = score("case", truth(), document(replay=replay(*experiments)))
    assert (s.fix_found, s.fix_replayed) == (found, found)


def test_for_a_collapse_the_fix_must_make_it_learn():
    collapse = truth(observed="finite")
    assert (
        score("case", collapse, document(replay=replay(experiment("labels", removes=True, learns=False)))).fix_found
        is False
    )
    assert score("case", collapse, document(replay=replay(experiment("labels", learns=True)))).fix_found is True


def test_a_run_that_was_not_replayed_counts_as_fix_not_found_but_not_as_replayed():
    s = score("case", truth(), document())
    assert (s.fix_found, s.fix_replayed) == (False, None)


def test_without_replay_no_fix_is_expected():
    assert score("case", truth(), document(), replay=False).fix_found is None


@pytest.mark.parametrize(
    ("observed", "status", "phase", "expected"),
    [
        ("nan_weights", "reproduced", "loss", (True, True, True)),
        ("nan_weights", "reproduced", "update", (True, True, False)),
        ("nan_weights", "reproduced", None, (True, True, False)),
        ("nan_weights", "not_reproduced", None, (True, False, None)),
        ("nan_weights", "not_run", "loss", (False, None, None)),
        ("finite", "not_reproduced", "loss", (True, None, True)),
        ("finite", "not_reproduced", None, (True, None, None)),
    ],
)
def test_replay_is_judged_by_what_it_repeats_and_by_the_part_of_the_step_it_names(observed, status, phase, expected):
    given = document(replay=replay(status=status)) | {"origin": {"layer": "out", "phase": phase}}
    s = score("case", truth(observed=observed), given)
    assert expected == (s.replayed, s.failure_repeated, s.phase_right)


def test_replay_is_not_judged_on_healthy_runs_or_where_it_was_not_asked_for():
    assert score("case", HEALTHY, document(replay=replay())).replayed is None
    assert score("case", truth(), document(), replay=False).replayed is None


def test_every_cause_has_a_part_of_the_step():
    from ckptdoctor.model import FAULTS, Phase

    assert {c.value for c in FAULTS} == set(PHASES)
    assert all(named <= {p.value for p in Phase} for named in PHASES.values())


def test_replay_totals_count_layers_and_fixes_of_replayed_runs_only():
    ran = score("a", truth(), document(replay=replay(experiment("labels", removes=True))))
    left = score("b", truth(), document(layer="h1", replay=replay(status="not_run")))
    t = replay_totals([ran, left])
    assert (str(t.replayed), str(t.layer), str(t.fix)) == ("1/2 (50 %)", "1/1 (100 %)", "1/1 (100 %)")


def test_last_healthy_and_first_bad_stand_on_both_sides_of_the_failing_epoch():
    s = score("case", truth(), document())
    assert (s.last_healthy_right, s.first_bad_right) == (True, True)
    late = document()
    late["timeline"]["last_healthy"] = "run/checkpoints/epoch_001.keras"
    assert score("case", truth(), late).last_healthy_right is False


def test_a_run_that_is_bad_in_every_kept_checkpoint_has_no_last_healthy_one():
    early = truth(buggy={"first_bad": {"epoch": 0, "batch": 0, "step": 1}, "nanw": True})
    timeline = document()["timeline"] | {"last_healthy": None, "first_bad": "run/checkpoints/epoch_000.keras"}
    s = score("case", early, document(timeline=timeline))
    assert (s.last_healthy_right, s.first_bad_right) == (True, True)


def test_no_document_is_wrong_and_makes_no_claim():
    s = score("case", truth(), None, error="no answer within 5 s")
    assert (s.right, s.claims, s.status, s.error) == (False, False, "unreadable", "no answer within 5 s")


def plain(confidence, *, right, cause="labels"):
    return CaseScore("case", "labels", "a", "sick", cause, "likely", confidence, 1.0, cause_right=right)


def test_reliability_compares_confidence_with_the_share_that_was_right():
    table = reliability(
        [plain(0.95, right=True), plain(0.91, right=False), plain(0.35, right=False), plain(1.0, right=True)]
    )
    assert [(b.low, b.count) for b in table] == [(0.3, 1), (0.9, 3)]
    assert table[1].accuracy == pytest.approx(2 / 3)
    assert calibration_error(table) == pytest.approx(0.25 * 0.35 + 0.75 * abs((0.95 + 0.91 + 1.0) / 3 - 2 / 3))


def test_unknown_makes_no_claim_and_is_left_out_of_the_calibration():
    assert reliability([plain(0.2, right=False, cause="unknown")]) == []
    assert calibration_error([]) is None


def test_shares_leave_out_questions_that_do_not_arise():
    counted = share([True, None, False, True])
    assert (counted.hits, counted.of) == (2, 3)
    assert share([None]).value is None


def test_totals_count_each_question_on_its_own():
    scores = [
        score("a", truth(), document()),
        score("b", truth(), document("unknown")),
        score("c", HEALTHY, document("healthy", "healthy")),
    ]
    t = totals(scores)
    assert (t.cause.hits, t.cause.of) == (1, 2)
    assert (t.false_alarms.hits, t.false_alarms.of) == (0, 1)
    assert (t.unknown.hits, t.unknown.of) == (1, 3)
    assert math.isclose(t.calibration_error, 0.1)


def test_confusions_name_what_was_taken_for_what():
    wrong = [
        score("a", truth(), document("optimizer")),
        score("b", HEALTHY, document("labels")),
        score("c", truth(), document()),
    ]
    assert confusions(wrong) == {("healthy", "labels"): ["b"], ("labels", "optimizer"): ["a"]}


def test_confusions_of_the_half_that_is_only_counted_name_no_case():
    wrong = [score("secret", truth(half="d"), document("optimizer"), replay=False, seconds=1.0, error=None)]
    assert confusions(wrong) == {("labels", "optimizer"): ["one of half d"]}


def test_renaming_must_keep_verdict_confidence_and_layer():
    assert renamed_differs(document(), document(layer="amber_3"), {"out": "amber_3"}) == ""
    assert "verdict" in renamed_differs(document(), document("optimizer"))
    assert "confidence" in renamed_differs(document(), document(confidence=0.7))
    assert "layer" in renamed_differs(document(), document(layer="h1"))


def test_less_evidence_may_lower_the_confidence_but_not_flip_a_certainty():
    assert removal_flips(document(), document(confidence=0.3)) == ""
    assert removal_flips(document(), document("optimizer", confidence=0.3)) == ""
    assert removal_flips(document(), document("unknown", confidence=0.9)) == ""
    assert "became" in removal_flips(document(), document("optimizer", confidence=0.8))
    assert removal_flips(document(), document("optimizer", confidence=0.8), {"labels", "optimizer"}) == ""
