"""`ckptdoctor explain`: a rule or a cause in full."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from ckptdoctor.cli.completion import rule_or_cause_words

if TYPE_CHECKING:
    from ckptdoctor.model import Cause
    from ckptdoctor.rules.registry import Rule


@click.command(short_help="What a rule checks, or what a cause means.")
@click.argument("word", metavar="CODE|CAUSE", shell_complete=rule_or_cause_words)
def explain(word: str) -> None:
    """Explain a rule (by code or name) or a cause: what it finds, why it matters, how to confirm and how to fix it.

    For rules also every threshold and where its number comes from.
    """
    from ckptdoctor.model import Cause
    from ckptdoctor.rules.registry import all_rules

    cause = next((c for c in Cause if c.value == word.lower().replace("-", "_").replace(" ", "_")), None)
    if cause is not None:
        click.echo(_cause(cause))
        return
    rules = all_rules()
    rule = next((r for r in rules if word.upper() == r.code or word.lower() == r.name), None)
    if rule is not None:
        click.echo(_rule(rule))
        return
    words = [*(r.code for r in rules), *(r.name for r in rules), *(c.value for c in Cause)]
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`ckptdoctor rules` lists the rules"
    raise click.UsageError(f"no rule or cause is called '{word}'; {hint}")


def _rule(rule: Rule) -> str:
    needs = ", ".join(sorted(rule.needs)) or "nothing"
    head = f"{rule.code} {rule.name}\nseverity {rule.severity.name.lower()}, needs {needs}, since {rule.since}"
    parts = [head, rule.doc]
    if rule.thresholds:
        rows = [f"- `{rule.code}.{name}` = {t.value:g} {t.unit}\n  {t.source}" for name, t in rule.thresholds.items()]
        parts.append("## Thresholds\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _cause(cause: Cause) -> str:
    from ckptdoctor.causes import CAUSE_DOCS

    doc = CAUSE_DOCS[cause]
    sections = [
        f"{cause.value}: {doc.title}\ngroup: {cause.group.value}",
        click.wrap_text(doc.plain),
        "## How to tell\n" + click.wrap_text(doc.how_to_tell),
        "## How to fix\n" + click.wrap_text(doc.how_to_fix),
    ]
    if doc.decide:
        sections.append("## What would decide\n" + click.wrap_text(doc.decide))
    return "\n\n".join(sections)
