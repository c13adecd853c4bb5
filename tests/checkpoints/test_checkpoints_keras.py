"""The installed Keras writes models now, and says itself what it wrote: every optimizer, and the committed files again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORMATS = ROOT / "fixtures" / "formats"

pytestmark = [pytest.mark.replay, pytest.mark.timeout(900)]  # some 70 models are built and saved


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything that `fixtures/make_formats.py` can make, in a process of its own."""
    out = tmp_path_factory.mktemp("made")
    script = str(ROOT / "fixtures" / "make_formats.py")
    subprocess.run([sys.executable, script, str(out), "--all"], check=True, timeout=850, capture_output=True)
    return out


def test_every_optimizers_slots_are_those_keras_names(made, monkeypatch):
    import test_checkpoints_formats as checks

    expected = json.loads((made / "expected.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(checks, "FORMATS", made)
    monkeypatch.setattr(checks, "MODELS", {f"made/{name}": rows for name, rows in expected.items()})
    (made / "made").symlink_to(made)
    # Adafactor's means bear only their weight's last name in Keras; RMSprop without configuration hides its second round.
    loose = {"adafactor.keras", "adafactor.weights.h5", "rmsprop_momentum.weights.h5"}
    assert len(expected) == 70
    for name in expected:
        checks.test_variables_have_the_names_and_bytes_that_keras_loads(f"made/{name}")
        if name not in loose:
            checks.test_slots_belong_to_the_weights_that_keras_made_them_for(f"made/{name}")


def test_the_committed_files_are_still_what_keras_loads(tmp_path):
    files = ["keras-3.13.0/m.keras", "keras-2.15/m.h5", "dtypes/bf16.keras", "saved-by-jax/m.keras"]
    script = str(ROOT / "fixtures" / "make_formats.py")
    subprocess.run(
        [sys.executable, script, str(tmp_path), "--read", *files],
        check=True,
        timeout=850,
        capture_output=True,
        cwd=FORMATS,
    )
    found = json.loads((tmp_path / "expected.json").read_text(encoding="utf-8"))
    committed = json.loads((FORMATS / "loaded.json").read_text(encoding="utf-8"))
    for file in files:
        for key in ("model", "optimizer"):
            saved = [row for row in committed[file][key] if "seed_generator" not in row["name"]]
            assert saved == [row for row in found[file][key] if "seed_generator" not in row["name"]]
