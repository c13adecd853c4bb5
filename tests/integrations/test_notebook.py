"""The notebook of the documentation, executed by a real kernel without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from integration_runs import ROOT, SICK, environment

NOTEBOOK = ROOT / "docs" / "howto" / "post_mortem.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each code cell shows: a list of outputs a cell."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(SICK, folder / "run")
    subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), "executed.ipynb"],
        cwd=folder,
        env=environment(IPYTHONDIR=folder / "ipython", JUPYTER_RUNTIME_DIR=folder / "runtime"),
        check=True,
        capture_output=True,
        timeout=200,
    )
    executed = json.loads((folder / "executed.ipynb").read_text(encoding="utf-8"))
    return [cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"]


def test_the_cell_shows_the_verdict_as_a_card_that_needs_no_trust(outputs):
    (shown,) = outputs[1]
    card = "".join(shown["data"]["text/html"])
    assert "data_nonfinite" in card
    assert "row 7 of batch 5" in card
    assert "<script" not in card


def test_it_offers_the_whole_report_as_markdown(outputs):
    (shown,) = outputs[1]
    assert "".join(shown["data"]["text/markdown"]).startswith("## Sick")


def test_nothing_is_printed_and_no_cell_fails(outputs):
    assert {output["output_type"] for cell in outputs for output in cell} == {"execute_result"}


def test_the_committed_notebook_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
