"""`[tool.ckptdoctor]` of pyproject.toml: defaults for the options of `inspect`, checked strictly.

A configuration found by itself may not name code to run, nor say what a stranger's file may ask for: someone who unpacks a
stranger's run and inspects it in place must not thereby import the stranger's modules or lift the limits on the stranger's
files. Such keys count only in a file named with --config.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ckptdoctor.model import CkptDoctorError

FAIL_ON = ("info", "warning", "error", "never")


class ConfigError(CkptDoctorError):
    """A configuration that cannot be used as it stands."""


def _words(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _amount(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


def _level(value: Any) -> str | None:
    return value if value in FAIL_ON else None


def _thresholds(value: Any) -> dict[str, float] | None:
    """`{"CKD203.growth": 5}` and `{CKD201: {growth: 5}}` (TOML's dotted keys) alike."""
    if not isinstance(value, dict):
        return None
    flat: dict[str, float] = {}
    for code, item in value.items():
        members = (
            {f"{code}.{name}": number for name, number in item.items()} if isinstance(item, dict) else {code: item}
        )
        for key, number in members.items():
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                return None
            flat[key] = float(number)
    return flat


def _limits(value: Any) -> dict[str, float] | None:
    """Numbers, true or false, or texts like `256MiB`, by the name of a limit."""
    if not isinstance(value, dict):
        return None
    from ckptdoctor.checkpoints.limits import parse_amount

    numbers: dict[str, float] = {}
    for name, item in value.items():
        number = (
            parse_amount(item) if isinstance(item, str) else float(item) if isinstance(item, (int, float)) else None
        )
        if number is None:
            return None
        numbers[name] = number
    return numbers


def limit_numbers(_ctx: Any, _parameter: Any, value: tuple[str, ...]) -> dict[str, float]:
    """`--limit json_bytes=256MiB` as numbers by name.

    Raises:
        click.BadParameter: no number, or no such limit.
    """
    from click import BadParameter

    from ckptdoctor.checkpoints.limits import changed_limits, parse_amount

    numbers: dict[str, float] = {}
    for item in value:
        name, _, text = item.partition("=")
        number = parse_amount(text)
        if number is None:
            raise BadParameter(f"expected NAME=NUMBER, with KiB, MiB or GiB behind it or without, found '{item}'")
        numbers[name.strip()] = number
    try:
        changed_limits(numbers)
    except CkptDoctorError as error:
        raise BadParameter(str(error)) from None
    return numbers


# key → (reader that returns None for a wrong value, what is expected)
KEYS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "select": (_words, "a list of rule codes or names"),
    "ignore": (_words, "a list of rule codes or names"),
    "thresholds": (_thresholds, "numbers, as `CKD203.growth = 5`"),
    "limits": (_limits, 'numbers, as `json_bytes = "256MiB"`'),
    "fail-on": (_level, f"one of {', '.join(FAIL_ON)}"),
    "replay": (_flag, "true or false"),
    "device": (_text, "auto, cpu, gpu or gpu:N"),
    "steps": (_count, "a positive whole number"),
    "budget": (_amount, "seconds"),
    "threads": (_count, "a positive whole number"),
    "build": (_text, "MODULE:FUNCTION"),
    "custom-objects": (_text, "MODULE"),
}
NAMES_CODE = frozenset({"build", "custom-objects"})
LIFTS_GUARDS = frozenset({"limits"})
COMMAND_LINE_ONLY = frozenset({"trust", "unsafe-lambda"})


def load_config(named: str | None, start: Path | None = None) -> dict[str, Any]:
    """The settings of a configuration file.

    Args:
        named: the file of --config, or None for the nearest pyproject.toml with a `[tool.ckptdoctor]` table, from
            `start` upwards.
        start: directory to begin at; None for the current one.

    Returns:
        Checked values by key; empty without a file.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value of the wrong kind, a key that is not allowed there.
    """
    if named is not None:
        table = _table(Path(named))
        if table is None:
            raise ConfigError(f"'{named}' has no [tool.ckptdoctor] table; add one or drop --config")
        return _checked(table, named, found=False)
    here = (start or Path.cwd()).resolve()
    for directory in (here, *here.parents):
        candidate = directory / "pyproject.toml"
        if candidate.is_file():
            table = _table(candidate)
            if table is not None:
                return _checked(table, str(candidate), found=True)
    return {}


def _table(path: Path) -> Mapping[str, Any] | None:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration '{path}': {(error.strerror or 'error').lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the configuration '{path}' is not valid TOML: {error}") from error
    tool = document.get("tool")
    table = tool.get("ckptdoctor") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"'{path}': tool.ckptdoctor must be a table, found {type(table).__name__}")
    return table


def _checked(table: Mapping[str, Any], path: str, *, found: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in table.items():
        if key in COMMAND_LINE_ONLY:
            raise ConfigError(f"'{path}': '{key}' may only be given on the command line, as --{key}")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(KEYS)}"
            raise ConfigError(f"'{path}': [tool.ckptdoctor] has no key '{key}'; {hint}")
        if found and key in NAMES_CODE | LIFTS_GUARDS:
            what, option = ("names code to run", key) if key in NAMES_CODE else ("lifts guards against files", "limit")
            raise ConfigError(
                f"'{path}': '{key}' {what}, so it counts only in a file named with --config; "
                f"use --config '{path}' or --{option}"
            )
        read, expected = KEYS[key]
        settings[key] = read(value)
        if settings[key] is None:
            raise ConfigError(f"'{path}': '{key}' expects {expected}, found {value!r}")
    return settings
