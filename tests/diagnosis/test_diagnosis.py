"""From findings to a verdict."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent.parent / "rules"))

from making import array, batches, census, evidence, layer, log, point, replay, series, spec, state, tensor, timeline

from ckptdoctor.advice import advise
from ckptdoctor.diagnosis import PRIORS, conclude, softmax
from ckptdoctor.model import (
    FAULTS,
    Association,
    Cause,
    Displacement,
    Experiment,
    Finding,
    Grade,
    Missing,
    NonfinitePoint,
    Phase,
    Problem,
    ProblemKind,
    ReplayStatus,
    Severity,
    Status,
    Vote,
)
from ckptdoctor.model.replay import Skill
from ckptdoctor.resume import where_to_resume
from ckptdoctor.rules.registry import Outcome, run_rules

BAD = census(tensor(nan=5))


def finding(
    cause: Cause = Cause.LABELS, weight: float = 3.0, severity: Severity = Severity.ERROR, **changes
) -> Finding:
    fields = {"rule": "CKD101", "id": "CKD101-1", "votes": (Vote(cause, weight, "because"),)}
    return Finding(severity=severity, message="something is wrong", **(fields | changes))


def outcome(*findings: Finding) -> Outcome:
    return Outcome(findings, (), ())


def diagnose(given_evidence):
    return conclude(run_rules(given_evidence), given_evidence)


def test_nothing_found_is_healthy():
    verdict = conclude(outcome(), evidence(census=census())).verdict
    assert (Status.HEALTHY, Cause.HEALTHY) == (verdict.status, verdict.cause)


def test_healthy_is_said_with_doubt_where_nothing_could_tell_whether_it_learned():
    def verdict(score):
        skill = Skill(score, None, None, None, None, None, None, None)
        return conclude(
            outcome(), evidence(census=census(), batches=batches(), replay=replay(skill=skill, custom_loss="own"))
        ).verdict

    assert verdict(None).confidence < verdict(0.9).confidence
    assert "'own'" in verdict(None).next_step
    assert "--custom-objects" in verdict(None).next_step


def test_healthy_is_said_with_doubt_where_rows_may_have_been_learned_by_heart():
    def verdict(share, *curves):
        unrelated = batches(association=Association("ridge", share, 0.0, 0.01, 256))
        known = evidence(census=census(), batches=unrelated, logs=log(series(), *curves))
        return conclude(outcome(), known).verdict

    doubted = verdict(0.01)
    assert doubted.confidence < verdict(0.4).confidence == verdict(0.01, series("val_loss")).confidence
    assert "no validation" in doubted.next_step


def test_a_layer_of_ones_own_gets_advice_that_says_what_to_look_for():
    own = layer("pool", "WordPool", registered="my>WordPool")
    verdict = diagnose(evidence(census=BAD, spec=spec(own, layer("out", units=1, activation="linear")))).verdict
    assert Cause.ARCHITECTURE is verdict.cause
    assert "Look in WordPool (pool) for a division, root" in verdict.next_step


def test_warnings_alone_are_no_sickness():
    verdict = conclude(outcome(finding(severity=Severity.WARNING)), evidence(census=census())).verdict
    assert Status.HEALTHY is verdict.status


def test_an_error_is_sickness_and_its_loudest_cause_wins():
    diagnosis = conclude(outcome(finding(Cause.LABELS, 3.0), finding(Cause.ACTIVATION, 1.0)), evidence(census=BAD))
    assert (Status.SICK, Cause.LABELS) == (diagnosis.verdict.status, diagnosis.verdict.cause)
    assert [c.log_odds for c in diagnosis.causes] == sorted((c.log_odds for c in diagnosis.causes), reverse=True)


def test_an_error_without_a_vote_is_unknown_and_says_what_would_decide():
    verdict = conclude(outcome(finding(votes=())), evidence(census=BAD)).verdict
    assert (Status.SICK, Cause.UNKNOWN, Grade.UNKNOWN) == (verdict.status, verdict.cause, verdict.grade)
    assert "last batches" in verdict.next_step


def test_a_sum_is_its_prior_and_its_votes():
    diagnosis = conclude(
        outcome(finding(Cause.LABELS, 3.0), finding(Cause.LABELS, -1.0, id="CKD102-1")), evidence(census=BAD)
    )
    labels = next(c for c in diagnosis.causes if c.cause is Cause.LABELS)
    assert math.isclose(PRIORS[Cause.LABELS] + 2.0, labels.log_odds)
    assert ("CKD101-1",) == labels.supporting
    assert ("CKD102-1",) == labels.opposing
    assert math.isclose(sum(c.weight for c in labels.contributions), labels.log_odds)


@given(st.dictionaries(st.sampled_from(FAULTS), st.floats(-1e6, 1e6), min_size=1))
def test_shares_are_a_distribution_in_the_order_of_the_sums(sums):
    shares = softmax(sums)
    assert math.isclose(1.0, sum(shares.values()))
    ranked = sorted(sums, key=lambda c: sums[c])
    assert all(shares[a] <= shares[b] for a, b in pairwise(ranked))


def test_more_evidence_for_a_cause_never_lowers_its_confidence():
    def confidence(weight):
        return conclude(outcome(finding(Cause.LABELS, weight)), evidence(census=BAD)).causes[0].confidence

    values = [confidence(w) for w in (1.5, 2.0, 3.0, 6.0)]
    assert sorted(values) == values


def test_only_an_observed_or_tested_cause_is_confirmed():
    plain = conclude(outcome(finding(weight=8.0)), evidence(census=BAD)).verdict
    proved = conclude(outcome(finding(weight=8.0, data={"confirms": "labels"})), evidence(census=BAD)).verdict
    assert (Grade.LIKELY, Grade.CONFIRMED) == (plain.grade, proved.grade)


def test_a_damaged_file_with_healthy_contents_is_unreadable_not_healthy():
    cut = census(problems=(Problem(ProblemKind.DAMAGED, "cut off"),), coverage=0.5)
    verdict = diagnose(evidence(census=cut)).verdict
    assert Status.UNREADABLE is verdict.status
    assert "50%" in verdict.headline


def test_a_damaged_file_with_nan_in_what_could_be_read_is_sick():
    cut = census(tensor(nan=1), problems=(Problem(ProblemKind.DAMAGED, "cut off"),), coverage=0.5)
    assert Status.SICK is diagnose(evidence(census=cut)).verdict.status


def test_nan_in_the_recorded_batch_is_confirmed_with_row_and_feature():
    x = array(nan=1, bad_rows=((2, 5),), bad_row_count=1, bad_features=(2,))
    diagnosis = diagnose(evidence(census=BAD, batches=batches(x), optimizer=state(), spec=spec()))
    assert (Cause.DATA_NONFINITE, Grade.CONFIRMED) == (diagnosis.verdict.cause, diagnosis.verdict.grade)
    assert "feature 2" in diagnosis.verdict.headline
    assert (Phase.INPUT, 2, (5,)) == (diagnosis.origin.phase, diagnosis.origin.batch, diagnosis.origin.rows)


def test_the_origin_is_the_replays_where_it_reproduced():
    bad = NonfinitePoint(Phase.FORWARD, "act0", "Exp", None, 0, 7, 3, (1, 4), "inf", message="exp overflowed")
    given_evidence = evidence(
        census=BAD, spec=spec(), replay=replay(ReplayStatus.REPRODUCED, first_bad=bad, mode="graph")
    )
    origin = diagnose(given_evidence).origin
    assert ("act0", Phase.FORWARD, "Exp", 7, 3, (1, 4)) == (
        origin.layer,
        origin.phase,
        origin.op,
        origin.step,
        origin.batch,
        origin.rows,
    )


def test_the_time_comes_from_the_log_or_the_timeline():
    sick = evidence(census=BAD, logs=log(series(values=(1.0, 0.5, math.nan))))
    assert 2 == diagnose(sick).origin.epoch
    dated = evidence(census=BAD, timeline=timeline(point(0), point(1, BAD, status=Status.SICK)))
    assert (1, 10) == (diagnose(dated).origin.epoch, diagnose(dated).origin.step)


def test_a_tested_fix_is_the_advice_with_its_code_and_where_to_resume():
    worked = Experiment(
        "lr/100", "learning rate 0.01 instead of 1", Cause.LEARNING_RATE, "SGD(0.01)", True, True, 50, 50, 9.0, 0.1
    )
    bad = NonfinitePoint(Phase.UPDATE, None, None, "h1/kernel", 3, 3, 0, (), "inf")
    given_evidence = evidence(
        census=BAD,
        spec=spec(),
        optimizer=state("SGD", 1.0),
        timeline=timeline(point(0), point(1, BAD, status=Status.SICK)),
        replay=replay(ReplayStatus.REPRODUCED, first_bad=bad, experiments=(worked,)),
    )
    diagnosis = diagnose(given_evidence)
    best = diagnosis.causes[0]
    assert (Cause.LEARNING_RATE, True, "SGD(0.01)") == (best.cause, best.fix.tested, best.fix.code)
    assert "Start again from epoch_000.keras." in diagnosis.verdict.next_step


def test_a_finite_run_that_never_learned_starts_again_from_new_weights():
    given_evidence = evidence(census=census(), timeline=timeline(point(0), point(5)))
    stuck = finding(rule="CKD601")
    step = conclude(outcome(stuck), given_evidence).verdict.next_step
    assert step.endswith("Start again from new weights.")
    resume = where_to_resume(given_evidence, (stuck,))
    assert resume is not None
    assert resume.path is None
    assert "did not learn" in resume.reason
    assert conclude(outcome(finding()), given_evidence).verdict.next_step.endswith("Continue from epoch_005.keras.")


@pytest.mark.parametrize(
    ("optimizer", "rate", "values", "advised"),
    [
        ("Adam", 1.0, (2.3, 2.3, 2.3, 2.3), "0.001"),  # finite but far above the usual: down, not up
        ("Adam", 1e-6, (2.3, 2.3, 2.3, 2.3), "0.001"),
        ("Adam", 1e-3, (2.3, 2.2, 2.1, 2.0), "0.01"),
        ("Adam", 1e-3, (2.3, 2.4, 2.5, 2.6), "0.0001"),
        ("SGD", 1e-6, (2.3, math.nan), "1e-07"),  # a small rate that failed all the same
        ("Lion", 1e-3, (2.3, 2.3, 2.3, 2.3), "0.0001"),
    ],
)
def test_another_rate_is_the_usual_one_or_a_step_in_the_direction_the_course_asks_for(optimizer, rate, values, advised):
    given_evidence = evidence(census=census(), optimizer=state(optimizer, rate), logs=log(series(values=values)))
    fix = advise(Cause.LEARNING_RATE, given_evidence)
    assert f": {advised} instead of" in fix.text


def test_the_loudest_finding_may_know_the_remedy_itself():
    own = finding(Cause.DATA_SCALE, data={"fix": "Hand the ids over as they are.", "code": "x = ids"})
    louder = finding(Cause.DATA_SCALE, weight=5.0)
    assert ("Hand the ids over as they are.", "x = ids") == _remedy(own)
    assert "Standardise" in _remedy(own, louder)[0]
    assert (
        "Standardise"
        in advise(Cause.DATA_SCALE, evidence(census=census()), (finding(Cause.LABELS, data={"fix": "no"}),)).text
    )


def _remedy(*findings: Finding) -> tuple[str, str]:
    fix = advise(Cause.DATA_SCALE, evidence(census=census()), findings)
    return fix.text, fix.code


def test_a_kernel_that_was_thrown_asks_for_a_smaller_rate_whatever_the_loss_does():
    went = Displacement("out/kernel", "out", "kernel", distance=4.0, size=0.5)
    given_evidence = evidence(
        census=census(),
        optimizer=state("SGD", 0.05),
        logs=log(series(values=(9.0, 8.0, 8.0, 8.0))),
        timeline=timeline(point(0), point(5), displacement=(went,)),
    )
    assert ": 0.005 instead of 0.05" in advise(Cause.LEARNING_RATE, given_evidence).text


@pytest.mark.parametrize("part", ["spec", "optimizer", "logs", "batches", "timeline"])
def test_removing_a_part_of_the_evidence_does_not_raise_confidence(part: str):
    x = array(nan=1, bad_rows=((2, 5),), bad_row_count=1, bad_features=(2,))
    full = evidence(
        census=BAD,
        spec=spec(),
        optimizer=state(),
        logs=log(series(values=(1.0, 0.6, 0.5, math.nan))),
        batches=batches(x),
        timeline=timeline(point(0), point(1, BAD, status=Status.SICK)),
    )
    less = replace(full, **{part: Missing("removed")})
    before, after = diagnose(full).verdict, diagnose(less).verdict
    assert after.confidence <= before.confidence + 0.02
    assert after.cause in (before.cause, Cause.UNKNOWN)
