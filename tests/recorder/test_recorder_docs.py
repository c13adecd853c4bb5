"""The how-to's code runs as it stands, and says what it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.replay

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "recorder.md").read_text(encoding="utf-8")


def test_every_code_block_of_the_howto_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks[:2]:
        exec(compile(block, "recorder.md", "exec"), space)
    quoted = re.search(r"```text\nckptdoctor: (.*?)```", PAGE, re.DOTALL)
    assert space["recorder"].message.split() == quoted[1].split()
    space["x"], space["y"] = space["x"][:128], space["y"][:128]
    for block in blocks[2:]:
        exec(compile(block, "recorder.md", "exec"), space)
    assert {p.name for p in tmp_path.iterdir()} == {"run", "own_run", "third_run"}


def test_the_table_of_options_lists_every_option_with_its_default():
    from ckptdoctor import FlightRecorder

    listed = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", PAGE, re.MULTILINE))
    options = {
        name: p.default
        for name, p in inspect.signature(FlightRecorder).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name not in ("model", "optimizer")
    }
    assert {k: str(v).removesuffix(".0") for k, v in options.items()} == listed
