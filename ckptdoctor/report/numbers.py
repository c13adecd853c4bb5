"""Numbers for people: short, honest about what they are, the same in every output."""

from __future__ import annotations

import math

ABSENT = "–"


def number(value: float | str | None, digits: int = 4) -> str:
    """A number with `digits` significant digits; NaN and infinities by name; `–` for None; text as it is."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if abs(value) >= 10**300:  # beyond what a float holds, as only a stranger's document can be
            return "< -1e300" if value < 0 else "> 1e300"
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3e}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def short(value: float | None) -> str:
    """A number in at most six characters or so, for axes and cells."""
    return number(value, 2)


def count(value: int, noun: str, plural: str | None = None) -> str:
    """`1 layer`, `2 layers`, `1,000 layers`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share as a percentage that is 0 % or 100 % only where it is exactly that."""
    if whole == 0:
        return ABSENT
    share = 100.0 * part / whole
    if share in (0.0, 100.0):
        return f"{share:.0f} %"
    if share < 0.1:
        return "< 0.1 %"
    if share > 99.9:
        return "> 99.9 %"
    return f"{share:.1f} %" if share < 10 or share > 99 else f"{share:.0f} %"


def size(nbytes: int) -> str:
    """Bytes in the largest decimal unit that leaves a number of at least 1."""
    amount = float(nbytes)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def shape(extents: tuple[int, ...]) -> str:
    """`100 × 64`; `scalar` for no axes."""
    return " × ".join(str(n) for n in extents) if extents else "scalar"


def indices(values: tuple[int, ...], total: int | None = None, shown: int = 8) -> str:
    """`2`, `2, 5 and 9`, `1, 2, 3 and 40 more`."""
    total = max(total or 0, len(values))
    head = [str(v) for v in values[:shown]]
    if total > len(head):
        return f"{', '.join(head)} and {total - len(head):,} more"
    return head[0] if len(head) == 1 else f"{', '.join(head[:-1])} and {head[-1]}" if head else ""


def seconds(value: float) -> str:
    """A duration."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"
