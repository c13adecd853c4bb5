"""The JSON schema of the document as a file: `python -m ckptdoctor.report.schema` prints it."""

from __future__ import annotations

import json
import sys

from ckptdoctor.report.document import schema


def schema_text() -> str:
    """The committed form of the schema."""
    return json.dumps(schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
