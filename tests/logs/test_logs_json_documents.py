"""Histories as JSON, one document or one object a line."""

import json
import math
from pathlib import Path

import pytest

from ckptdoctor.logs import LogError, detect_log, read_log


def written(tmp_path: Path, text: str, name: str = "history.json") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_epochs_listed_beside_the_history_place_its_values(tmp_path):
    document = {"history": {"loss": [1.0, math.nan]}, "epoch": [10, 11], "params": {"epochs": 12, "steps": 5}}
    log = read_log(written(tmp_path, json.dumps(document)))
    assert (log.find("loss").axis, log.find("loss").steps) == ("epoch", (10.0, 11.0))
    assert [s.name for s in log.series] == ["loss"]


def test_a_list_of_steps_wherever_it_stands(tmp_path):
    log = read_log(written(tmp_path, '{"loss": [1.0, 0.5], "step": [100, 200]}'))
    assert (log.find("loss").axis, log.find("loss").steps) == ("step", (100.0, 200.0))


@pytest.mark.parametrize("spelling", ["NaN", '"NaN"', "nan", "-nan"])
def test_nan_bare_and_quoted(tmp_path, spelling):
    assert read_log(written(tmp_path, f'{{"loss": [1.0, {spelling}]}}')).find("loss").nonfinite == 1


def test_a_document_cut_off_is_read_up_to_there(tmp_path):
    whole = json.dumps({"loss": [float(i) for i in range(100)], "val_loss": [1.0] * 100})
    log = read_log(written(tmp_path, whole[:300]))
    assert log.find("loss").count > 20
    assert log.find("loss").values == tuple(float(i) for i in range(log.find("loss").count))
    assert any("cut off" in note for note in log.notes)


def test_log_history_of_records(tmp_path):
    rows = [
        {"loss": 1.0, "step": 10, "epoch": 0.5},
        {"eval_loss": 2.0, "step": 10},
        {"loss": math.inf, "step": 20, "epoch": 1.0},
    ]
    log = read_log(written(tmp_path, json.dumps({"log_history": rows, "best_metric": 3})))
    assert (log.find("loss").steps, log.find("eval_loss").steps) == ((10.0, 20.0), (10.0,))


def test_deep_nesting_ends_with_a_sentence(tmp_path):
    with pytest.raises(LogError, match="lists of numbers"):
        read_log(written(tmp_path, "[" * 100_000))
    log = read_log(written(tmp_path, '{"loss": [1.0], "x": ' + "[" * 100_000))
    assert log.find("loss").values == (1.0,)


def test_numbers_of_thousands_of_digits(tmp_path):
    log = read_log(written(tmp_path, '{"loss": [1.0, ' + "9" * 5000 + "]}"))
    assert log.find("loss").values == (1.0, math.inf)


def test_lines(tmp_path):
    lines = [
        '{"step": 1, "loss": 1.0, "opt": {"lr": 0.1}}',
        '{"step": 2, "loss": NaN}',
        '{"step": 3, "loss": -Infinity}',
        '{"step": 4, "loss": nan}',
        "garbage",
        '{"step": 5, "lo',
    ]
    log = read_log(written(tmp_path, "\n".join(lines), "log.jsonl"))
    assert (log.format, log.find("loss").steps, log.find("loss").nonfinite) == ("jsonl", (1.0, 2.0, 3.0, 4.0), 3)
    assert log.find("opt/lr").values == (0.1,)
    assert any("torn" in note for note in log.notes)
    assert any("not a JSON object" in note for note in log.notes)


def test_null_is_missing_and_told(tmp_path):
    log = read_log(
        written(tmp_path, '{"epoch": 0, "loss": 1.0}\n{"epoch": 1, "loss": null, "acc": 0.5}\n', "log.jsonl")
    )
    assert (log.find("loss").steps, log.find("acc").steps) == ((0.0,), (1.0,))
    assert any("null" in note for note in log.notes)


def test_rows_without_an_axis_count_themselves(tmp_path):
    log = read_log(written(tmp_path, '{"loss": 1.0}\n{"loss": 0.5}\n', "log.jsonl"))
    assert (log.find("loss").axis, log.find("loss").steps) == ("step", (0.0, 1.0))


def test_the_recorders_steps(tmp_path):
    rows = [
        {"step": s, "epoch": s // 2, "batch": s % 2, "loss": 1.0, "learning_rate": 0.1, "grad_norm": 2.0}
        for s in range(4)
    ]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows)), "steps.jsonl"))
    assert (log.find("grad_norm").axis, log.find("epoch").values) == ("step", (0.0, 0.0, 1.0, 1.0))


def test_booleans_and_texts_are_no_metrics(tmp_path):
    log = read_log(
        written(tmp_path, '{"loss": 1.0, "done": true, "host": "a"}\n{"loss": 2.0, "done": false}\n', "log.jsonl")
    )
    assert [s.name for s in log.series] == ["loss"]


def test_a_configuration_is_no_history(tmp_path):
    assert detect_log(written(tmp_path, json.dumps({"units": [64, 32], "config": {"layers": [1, 2]}}))) is None
    assert (
        detect_log(written(tmp_path, json.dumps({"fix": "x", "first": {"loss": 1.0, "epochs": 3}}, indent=1))) is None
    )


def test_a_document_of_more_values_than_are_read_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptdoctor.logs.history.MAX_LEAVES", 50)
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"loss": [1.0] * 80}))
    log = read_log(str(path))
    assert 50 == log.series[0].count
    assert any("more than 50 values" in note for note in log.notes)


@pytest.mark.parametrize("name", ['"epoch"', '"Epoch "', '" GLOBAL_STEP"'])
def test_the_list_that_counts_is_found_however_it_is_spelled(tmp_path, name):
    path = tmp_path / "history.json"
    path.write_text(f'{{"loss": [3.0, 2.0, 1.0], {name}: [10, 20, 30]}}')
    (loss,) = read_log(str(path)).series
    assert (10.0, 20.0, 30.0) == loss.steps
