"""Does x predict y: labels out of step with their rows are told from all kinds of ordinary data."""

import time

import numpy as np
import pytest

from ckptdoctor.evidence.association import Rows, associate
from ckptdoctor.evidence.batches import measure_batches
from ckptdoctor.model import Association, Missing

ROWS = 256


def regression(rng):
    x = rng.normal(size=(ROWS, 8))
    return Rows(x), Rows(x @ rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(ROWS, 1)))


def nonlinear(rng):
    x = rng.normal(size=(ROWS, 2))
    return Rows(x), Rows(((x**2).sum(axis=1, keepdims=True) > 1.4).astype(float), classes=True)


def images(rng):
    labels = rng.integers(0, 10, ROWS)
    kinds = rng.random((10, 12, 12, 1)) > 0.8
    return Rows((kinds[labels] + 0.3 * rng.normal(size=(ROWS, 12, 12, 1))).astype("f4")), Rows(
        np.eye(10)[labels], classes=True
    )


def wide_images(rng):
    labels = rng.integers(0, 3, ROWS)
    kinds = rng.normal(size=(3, 32, 32, 3))
    return Rows(kinds[labels] + 1.0 * rng.normal(size=(ROWS, 32, 32, 3))), Rows(labels, classes=True)


def sentences(rng):
    labels = rng.integers(0, 2, ROWS)
    words = rng.integers(1, 2000, (ROWS, 80))
    words[np.arange(ROWS), rng.integers(0, 80, ROWS)] = 2001 + labels
    words[np.arange(ROWS), rng.integers(0, 80, ROWS)] = 2001 + labels
    return Rows(words, tokens=True), Rows(labels, classes=True)


def badly_scaled(rng):
    x = rng.normal(size=(ROWS, 6)) * np.array([1e-4, 1, 1e3, 1e6, 1, 1]) + 1e4
    y = (x[:, :1] - 1e4) * 1e4 + rng.normal(size=(ROWS, 1)) * 0.3
    return Rows(x), Rows(y * 1e3 + 500)


def ages(rng):
    """A hundred classes in an order: as classes each is too rare to be predicted."""
    x = rng.normal(size=(ROWS, 8))
    age = np.clip(45 + 12 * x[:, 0] + 3 * rng.normal(size=ROWS), 0, 99).astype(int)
    return Rows(x), Rows(age, classes=True)


KINDS = [regression, nonlinear, images, wide_images, sentences, badly_scaled, ages]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_ordinary_data_stand_out_and_shuffled_targets_do_not(kind, seed):
    rng = np.random.default_rng(seed)
    x, y = kind(rng)
    right = associate([x], [y])
    assert (right.score - right.chance) / right.chance_std > 8
    wrong = associate([x], [Rows(y.values[rng.permutation(ROWS)], classes=y.classes)])
    assert (wrong.score - wrong.chance) / wrong.chance_std < 4
    assert wrong.score < 0.05
    assert abs(wrong.chance) < 0.05


def test_classes_in_an_order_are_told_from_those_without_one():
    x, y = ages(np.random.default_rng(0))
    assert associate([x], [y]).by_number
    assert associate([x], [Rows(np.eye(100)[y.values], classes=True)]).by_number
    assert not associate(*([one] for one in images(np.random.default_rng(0)))).by_number


def test_rows_that_stand_twice_do_not_predict_themselves():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 2, 60)
    found = associate([Rows(np.tile(x, (4, 1)))], [Rows(np.tile(y, 4), classes=True)])
    assert found.rows == 60
    assert (found.score - found.chance) / found.chance_std < 4


def test_bad_rows_are_left_out():
    rng = np.random.default_rng(0)
    x, y = regression(rng)
    x.values[10:20, 0] = np.nan
    y.values[30:40] = np.inf
    assert associate([x], [y]).rows == ROWS - 20


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.ones((8, 2)), np.arange(8.0), "different rows"),
        (np.random.default_rng(0).normal(size=(100, 2)), np.ones(100), "do not vary"),
        (np.full((100, 2), np.nan), np.arange(100.0), "different rows"),
    ],
)
def test_too_little_to_tell_is_said(x, y, why):
    found = associate([Rows(x)], [Rows(y)])
    assert isinstance(found, Missing)
    assert why in found.reason


def test_it_takes_a_moment():
    rng = np.random.default_rng(0)
    x, y = wide_images(rng)
    started = time.process_time()
    associate([x], [y])
    assert time.process_time() - started < 5  # a quarter of a second on an idle core


def test_from_recorded_batches(tmp_path):
    rng = np.random.default_rng(5)
    x, y = images(rng)
    shuffled = y.values[rng.permutation(ROWS)]
    scores = []
    for targets in (y.values, shuffled):
        np.savez(
            tmp_path / "b.npz", x=x.values.reshape(8, 32, 12, 12, 1), y=targets.reshape(8, 32, 10), step=np.arange(8)
        )
        found = measure_batches(tmp_path / "b.npz", Missing("no configuration")).association
        assert isinstance(found, Association)
        scores.append(found.score)
    assert scores[0] > 0.5
    assert scores[1] < 0.05
