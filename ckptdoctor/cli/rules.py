"""`ckptdoctor rules`: what is checked."""

from __future__ import annotations

import json

import click


@click.command(short_help="All rules.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules(format_: str) -> None:
    """List every rule: code, severity, name, what it finds. `ckptdoctor explain CODE` tells more."""
    from ckptdoctor.rules.registry import all_rules

    if format_ == "json":
        rows = [
            {
                "code": rule.code,
                "name": rule.name,
                "severity": rule.severity.name.lower(),
                "needs": sorted(rule.needs),
                "since": rule.since,
                "summary": rule.summary,
                "thresholds": {
                    n: {"value": t.value, "unit": t.unit, "source": t.source} for n, t in rule.thresholds.items()
                },
            }
            for rule in all_rules()
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    for rule in all_rules():
        click.echo(f"{rule.code}  {rule.severity.name.lower():<8} {rule.name}")
        click.echo(click.wrap_text(rule.summary, width=78, initial_indent=" " * 8, subsequent_indent=" " * 8))
