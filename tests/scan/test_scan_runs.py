"""First bad, last healthy, where to resume: exact, in whatever order results come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.model import Status
from ckptdoctor.scanner import RunSummary, ScanResult
from ckptdoctor.scanner.result import Kind
from ckptdoctor.scanner.runs import RunBook


def result(name: str, status: Status, *, step: int | None = None, epoch: int | None = None, **more) -> ScanResult:
    return ScanResult(f"r/{name}", "r", status, step=step, epoch=epoch, **more)


def summary(results: list[ScanResult]) -> RunSummary:
    book = RunBook()
    for one in results:
        book.begin(one.run)
    assert book.end("r") is None
    told = [book.add(one) for one in results]
    assert all(t is None for t in told[:-1])
    assert told[-1] is not None
    assert len(book) == 0
    return told[-1]


H, S, U = Status.HEALTHY, Status.SICK, Status.UNREADABLE


def test_iterations_outrank_names():
    run = summary([result("a", S, step=30), result("b", H, step=20), result("c", H, step=10), result("d", S, step=40)])
    assert run.order == "iterations"
    assert run.first_bad is not None
    assert (run.first_bad.path, run.resume_from) == ("r/a", "r/b")


def test_without_iterations_epochs_count_and_then_names():
    run = summary([result("e_9", H, epoch=9), result("e_10", S, epoch=10), result("e_11", H, epoch=11)])
    assert (run.order, run.resume_from) == ("epochs", "r/e_9")
    run = summary([result("e_9", H), result("e_10", S, step=3), result("e_11", H)])
    assert (run.order, run.resume_from) == ("names", "r/e_9")


def test_a_run_that_was_sick_from_its_start_has_nowhere_to_resume():
    run = summary([result("a", S, step=0), result("b", H, step=5)])
    assert run.resume_from is None


def test_a_healthy_run_resumes_from_its_latest():
    run = summary([result("a", H, step=5), result("b", H, step=7), result("c", U, kind=Kind.DAMAGED)])
    assert (run.status, run.first_bad, run.resume_from) == (H, None, "r/b")
    assert (run.healthy, run.unreadable, run.checkpoints) == (2, 1, 3)


def test_a_run_of_unreadable_ones_is_unreadable():
    assert summary([result("a", U)]).status is U


def test_the_cause_of_a_run_is_that_of_its_first_bad_checkpoint():
    run = summary(
        [result("b", S, step=9, cause="unknown", layer="x"), result("a", S, step=3, cause="data_nonfinite", layer="in")]
    )
    assert (run.cause, run.layer) == ("data_nonfinite", "in")


checkpoints = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([H, S, U])), min_size=1, max_size=25, unique_by=lambda c: c[0]
)


@pytest.mark.parametrize("order", ["iterations", "epochs", "names"])
@given(checkpoints, st.randoms(use_true_random=False))
def test_the_summary_does_not_depend_on_the_order_of_results(order: str, states, chance: random.Random):
    key = {"iterations": "step", "epochs": "epoch"}.get(order)
    results = [result(f"e_{n}", status, **({key: n} if key else {})) for n, status in states]
    shuffled = list(results)
    chance.shuffle(shuffled)
    run = summary(shuffled)
    sick = sorted(n for n, status in states if status is S)
    healthy = sorted(n for n, status in states if status is H and (not sick or n < sick[0]))
    assert (run.first_bad and run.first_bad.path) == (f"r/e_{sick[0]}" if sick else None)
    assert run.resume_from == (f"r/e_{healthy[-1]}" if healthy else None)
    assert (run.healthy, run.sick, run.unreadable) == tuple(sum(s is k for _, s in states) for k in (H, S, U))


def test_files_that_turn_out_to_be_no_checkpoints_hold_nothing_up():
    book = RunBook()
    for _ in range(2):
        book.begin("r")
    book.end("r")
    assert book.add(result("a", H)) is None
    run = book.skip("r")
    assert run is not None
    assert run.checkpoints == 1


def test_runs_that_never_ended_are_told_at_the_finish():
    book = RunBook()
    for run in ("b", "a"):
        book.begin(run)
        book.add(ScanResult(f"{run}/x", run, H))
    book.begin("c")  # never came back
    assert [s.run for s in book.finish()] == ["a", "b"]


def test_a_run_without_checkpoints_is_not_told():
    book = RunBook()
    assert book.end("empty") is None
    assert book.finish() == []
