"""Nothing heavy before it is needed: importing all but replay and recorder loads no framework, and h5py not at start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "keras", "tf_keras", "h5py", "jax", "torch", "pandas", "orbax")
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import ckptdoctor
for module in pkgutil.walk_packages(ckptdoctor.__path__, "ckptdoctor."):
    heavy = module.name.startswith(("ckptdoctor.replay", "ckptdoctor.recorder"))
    if not heavy and not module.name.endswith("__main__"):  # importing that would run the command
        importlib.import_module(module.name)
print(json.dumps(sorted(m for m in sys.modules if "." not in m)))
"""


def modules_after(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_whole_package_but_replay_imports_without_a_framework() -> None:
    loaded = modules_after(IMPORT_ALL)
    assert "ckptdoctor" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_the_command_answers_without_numpy(argument: str) -> None:
    code = f"""
import json, sys
from ckptdoctor.cli import main
try:
    main([{argument!r}])
except SystemExit as done:
    assert not done.code
print()
print(json.dumps(sorted(m for m in sys.modules if "." not in m)))
"""
    assert modules_after(code).isdisjoint((*HEAVY, "numpy", "jinja2"))
