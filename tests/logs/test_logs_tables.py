"""CSV as runs leave it: torn, glued, resumed, mixed."""

import math
from pathlib import Path

import pytest

from ckptdoctor.logs import LogError, detect_log, read_log


def written(tmp_path: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_na_is_missing_and_nan_is_not(tmp_path):
    log = read_log(written(tmp_path, "epoch,loss,val_loss\n0,1.0,NA\n1,nan,0.5\n2,NA,nan\n"))
    assert (log.find("loss").steps, log.find("loss").nonfinite) == ((0.0, 1.0), 1)
    assert log.find("val_loss").steps == (1.0, 2.0)


@pytest.mark.parametrize(
    "spelling", ["nan", "NaN", "-nan", "NAN", "nan(ind)", "-nan(ind)", "1.#QNAN", "-1.#IND", "1.#IND00", '"NaN"']
)
def test_every_spelling_of_nan(tmp_path, spelling):
    log = read_log(written(tmp_path, f"epoch,loss\n0,1\n1,{spelling}\n"))
    assert math.isnan(log.find("loss").values[1])


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("1.#INF", math.inf),
        ("-1.#INF00", -math.inf),
        ("1e999", math.inf),
    ],
)
def test_every_spelling_of_infinity(tmp_path, spelling, value):
    assert value == read_log(written(tmp_path, f"epoch,loss\n0,1\n1,{spelling}\n")).find("loss").values[1]


def test_a_torn_last_line_is_left_out_and_told(tmp_path):
    log = read_log(written(tmp_path, "epoch,accuracy,loss\r\n0,0.5,1.0\r\n1,0.6,0.9\r\n2,0.7"))
    assert log.find("loss").steps == (0.0, 1.0)
    assert any("torn" in note for note in log.notes)


def test_mixed_line_endings_and_a_byte_order_mark(tmp_path):
    log = read_log(written(tmp_path, b"\xef\xbb\xbfepoch,loss\r\n0,1.0\n1,0.9\r2,0.8\r\n"))
    assert (log.find("loss").steps, log.find("loss").values) == ((0.0, 1.0, 2.0), (1.0, 0.9, 0.8))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_what_a_windows_shell_writes(tmp_path, encoding):
    mark = "﻿" if encoding == "utf-16-le" else ""
    log = read_log(written(tmp_path, (mark + "epoch,loss\r\n0,1.0\r\n1,nan\r\n").encode(encoding)))
    assert log.find("loss").nonfinite == 1


def test_a_resumed_run_repeats_its_header_and_starts_again(tmp_path):
    log = read_log(written(tmp_path, "epoch,loss\n0,1.0\n1,0.9\nepoch,loss\n0,0.8\n1,0.7\n"))
    assert log.find("loss").steps == (0.0, 1.0, 0.0, 1.0)
    assert log.restarts == (0.0,)
    assert any("header stands again" in note for note in log.notes)


def test_a_new_header_with_other_columns_counts_from_there(tmp_path):
    log = read_log(written(tmp_path, "epoch,loss\n0,1.0\nepoch,accuracy,loss\n1,0.5,0.9\n"))
    assert log.find("loss").values == (1.0, 0.9)
    assert (log.find("accuracy").steps, log.find("accuracy").values) == ((1.0,), (0.5,))


def test_lines_glued_by_a_crash_are_skipped_and_counted(tmp_path):
    log = read_log(written(tmp_path, "epoch,loss\n0,1.0\n1,0.93,0.5\n4,0.4\n"))
    assert log.find("loss").steps == (0.0, 4.0)
    assert any("2 cells" in note for note in log.notes)


def test_a_hole_of_nul_bytes_costs_that_row_only(tmp_path):
    log = read_log(written(tmp_path, b"epoch,loss\n0,1.0\n1,\x00\x00\x00\n2,0.8\n"))
    assert log.find("loss").steps == (0.0, 2.0)
    assert any("NUL" in note for note in log.notes)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(tmp_path, delimiter):
    log = read_log(written(tmp_path, "epoch,loss\n0,1.5\n1,nan\n".replace(",", delimiter)))
    assert log.find("loss").values[0] == 1.5


def test_a_table_by_step_keeps_the_epoch_beside_it(tmp_path):
    log = read_log(written(tmp_path, "step,epoch,loss\n10,0,1.0\n20,0,0.9\n30,1,nan\n"))
    assert (log.find("loss").axis, log.find("loss").steps) == ("step", (10.0, 20.0, 30.0))
    assert log.find("epoch").values == (0.0, 0.0, 1.0)


def test_epoch_and_batch_together_count_rows(tmp_path):
    log = read_log(written(tmp_path, "epoch,batch,loss\n0,0,1.0\n0,1,0.9\n1,0,0.8\n"))
    assert (log.find("loss").axis, log.find("loss").steps, log.restarts) == ("step", (0.0, 1.0, 2.0), ())


def test_text_columns_are_left_out(tmp_path):
    log = read_log(written(tmp_path, "epoch,host,loss\n0,a,1.0\n1,b,0.9\n"))
    assert [s.name for s in log.series] == ["loss"]
    assert any("'host' holds text" in note for note in log.notes)


def test_no_loss_column_is_used_as_far_as_it_goes(tmp_path):
    log = read_log(written(tmp_path, "epoch,accuracy\n0,0.5\n1,0.6\n"))
    assert log.find("accuracy").count == 2
    assert "there is no column with a loss" in log.notes


def test_a_header_alone_is_a_run_that_ended_early(tmp_path):
    log = read_log(written(tmp_path, "epoch,loss,val_loss\n"))
    assert log.series == ()
    assert any("no row" in note for note in log.notes)


def test_a_tensorboard_download_is_named_by_its_file(tmp_path):
    log = read_log(
        written(
            tmp_path, "Wall time,Step,Value\n1700000000.1,0,0.5\n1700000001.1,1,nan\n", "run-train-tag-epoch_loss.csv"
        )
    )
    assert [s.name for s in log.series] == ["epoch_loss"]


def test_a_million_rows_in_constant_memory_with_exact_counts(tmp_path):
    import tracemalloc

    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("epoch,loss\n")
        for start in range(0, 300_000, 10_000):
            file.write("".join(f"{i},{'nan' if i == 123_456 else 1 / (i + 1)}\n" for i in range(start, start + 10_000)))
    tracemalloc.start()
    series = read_log(path).find("loss")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (series.count, series.nonfinite) == (300_000, 1)
    assert series.first_nonfinite[0] == 123_456.0
    assert {123_455.0, 123_456.0, 123_457.0} <= set(series.steps)
    assert len(series.steps) < 4000
    assert peak < 64 << 20


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"\x00" * 100, bytes(range(256)) * 10])
def test_no_log_at_all_is_one_sentence(tmp_path, content):
    path = written(tmp_path, content, "log.txt")
    assert detect_log(path) is None
    with pytest.raises(LogError, match=r"expected|no line"):
        read_log(path)


def test_what_is_not_a_log_is_not_taken_for_one(tmp_path):
    for name, text in {
        "requirements.txt": "numpy==1.0\nkeras>=3\n",
        "config.json": '{"learning_rate": 0.1, "units": [64, 32], "batch_size": 32}',
        "training_metadata.json": '{"epoch": 3, "batch": 0}',
        "data.csv": "sepal,petal,kind\n1.0,2.0,0\n",
        "notes.md": "# Notes\n\nloss went up\n",
    }.items():
        assert detect_log(written(tmp_path, text, name)) is None, name


def test_a_missing_file_and_a_pipe_are_errors_not_hangs(tmp_path):
    import os

    with pytest.raises(LogError, match="there is no log"):
        read_log(tmp_path / "nothing.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(LogError):
        read_log(tmp_path / "pipe.csv")


def test_a_table_of_a_billion_columns_is_refused(tmp_path):
    with pytest.raises(LogError, match="columns"):
        read_log(written(tmp_path, "epoch,loss" + ",a" * 100_000 + "\n" + "1" + ",2" * 100_001 + "\n"))
