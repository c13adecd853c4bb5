"""Gold files: committed outputs that a change must be seen to change.

`CKPTDOCTOR_UPDATE_GOLD=1 pytest tests/report` writes them anew; the difference is then reviewed like code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

GOLD = Path(__file__).parent / "gold"


def scrubbed(text: str) -> str:
    """Without what changes from release to release."""
    return re.sub(r"(ckptdoctor\D{0,14})\d+\.\d+\.\d+", r"\1VERSION", text)


def agrees_with_gold(name: str, text: str) -> None:
    """Fail where the text differs from the committed file."""
    path = GOLD / name
    if os.environ.get("CKPTDOCTOR_UPDATE_GOLD"):
        GOLD.mkdir(exist_ok=True)
        path.write_text(scrubbed(text), encoding="utf-8")
    assert path.is_file(), f"no gold file {name}; CKPTDOCTOR_UPDATE_GOLD=1 writes it"
    assert path.read_text(encoding="utf-8") == scrubbed(text)
