"""The page on security says what the code does. `python tests/security/test_security_page.py` writes its table anew."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.rules.registry import all_rules

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- limits: begin -->\n", "<!-- limits: end -->"


def table() -> str:
    """Name, default and reason of every limit, from the class itself."""
    reasons = re.split(
        r"\n\s{8}(?=[a-z_0-9]+(?:, [a-z_0-9]+)*: )", (ReadLimits.__doc__ or "").split("Attributes:", 1)[1]
    )
    by_name = {}
    for entry in reasons:
        names, _, reason = entry.strip().partition(": ")
        for name in names.split(", "):
            by_name[name] = " ".join(reason.split())
    lines = ["| limit | default | why |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {shown(f.name, f.default)} | {by_name[f.name]} |" for f in fields(ReadLimits)]
    return "\n".join(lines) + "\n"


def shown(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower()
    if "bytes" in name or name.endswith("_floor"):
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
            if value >= size:
                return f"{value / size:g} {unit}"
    return f"{value:,.10g} s" if name.endswith("seconds") else f"{value:,}"


def test_the_table_of_limits_is_that_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN, 1)[1].split(END, 1)[0] == table()


def test_every_advisory_has_a_sample_and_a_rule_that_exists():
    from fixtures.make_hostile import PUBLISHED

    text = PAGE.read_text(encoding="utf-8")
    assert {s.advisory for s in PUBLISHED} == set(re.findall(r"CVE-\d{4}-\d+", text))
    assert set(re.findall(r"CKD\d{3}", text)) <= {r.code for r in all_rules()}


def test_the_options_it_names_exist():
    from ckptdoctor.cli.inspect import inspect
    from ckptdoctor.cli.scan import scan

    options = {o for command in (inspect, scan) for p in command.params for o in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8"))) <= options | {"--inputs"}


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN, 1)
    PAGE.write_text(head + BEGIN + table() + END + rest.split(END, 1)[1], encoding="utf-8")
