"""`ckptdoctor.inspect` as a function, and its report in a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ckptdoctor
from ckptdoctor.model import CkptDoctorError

RUN = Path(__file__).parents[2] / "fixtures" / "runs" / "nan_feature"


@pytest.fixture(scope="module")
def report() -> ckptdoctor.Inspection:
    return ckptdoctor.inspect(RUN, replay=False)


def test_it_names_cause_layer_and_feature(report: ckptdoctor.Inspection):
    assert "data_nonfinite" == report.verdict.cause.value
    assert "feature 2" in str(report)


def test_the_page_is_saved_whole(report: ckptdoctor.Inspection, tmp_path: Path):
    saved = report.save_html(tmp_path / "report.html")
    assert Path(saved).read_text(encoding="utf-8").startswith("<!")
    assert ["report.html"] == [p.name for p in tmp_path.iterdir()]


def test_the_document_is_strict_json(report: ckptdoctor.Inspection):
    def refuse(token: str):
        raise AssertionError(token)

    assert "1.0" == json.loads(report.to_json(), parse_constant=refuse)["schema_version"]


def test_in_a_notebook_it_shows_itself_without_a_script(report: ckptdoctor.Inspection):
    card = report._repr_html_()
    assert "data_nonfinite" in card or "NaN or infinity in the data" in card
    assert "<script" not in card
    assert "feature 2" in report._repr_markdown_()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    ckptdoctor.inspect(RUN, replay=False)
    assert ("", "") == tuple(capfd.readouterr())


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(CkptDoctorError, match="no option 'replya'"):
        ckptdoctor.inspect(RUN, replya=False)


def test_a_missing_path_is_one_sentence():
    with pytest.raises(CkptDoctorError) as caught:
        ckptdoctor.inspect("no/such/run")
    assert "\n" not in str(caught.value)
