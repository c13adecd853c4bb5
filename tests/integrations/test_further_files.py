"""`inspect --also`: one inspection, several files."""

from __future__ import annotations

import json

import pytest
from integration_runs import SICK, ckptdoctor


def test_each_file_has_the_format_of_its_suffix_and_standard_output_stays_what_was_asked_for(tmp_path):
    names = ("page.html", "report.json", "report.md", "junit.xml", "report.txt")
    also = [word for name in names for word in ("--also", name)]
    done = ckptdoctor("inspect", SICK, "--no-replay", "--format", "json", *also, cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())
    assert done.stderr.splitlines() == [f"Written: {name}" for name in names]
    starts = {name: (tmp_path / name).read_text(encoding="utf-8").split("\n")[0] for name in names}
    assert starts["page.html"] == "<!doctype html>"
    assert starts["report.md"].startswith("## Sick")
    assert starts["junit.xml"].startswith("<?xml")
    assert starts["report.txt"].startswith("SICK")


@pytest.mark.parametrize(
    ("name", "message"), [("report.docx", "expected a file that ends in .html"), ("absent/report.md", "does not exist")]
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, name, message):
    done = ckptdoctor("inspect", SICK, "--no-replay", "--also", name, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
