"""Numbers as logs spell them: every form of NaN and infinity, and what means "no value"."""

from __future__ import annotations

import re

MISSING_WORDS = frozenset(
    {"", "NA", "N/A", "n/a", "na", "#N/A", "<NA>", "null", "NULL", "None", "none", "nil", "NaT", "-", "--", "?"}
)
"""Cells that say that there is no value. `NA` is what CSVLogger writes for a key that an epoch did not have: not a NaN."""

# C runtimes print NaN as `nan`, `-nan`, `nan(ind)`, `nan(0x8000…)`; Microsoft's older ones as `1.#QNAN`, `-1.#IND`,
# rounded to few digits also as `1.#R` or `1.#J`. Python, Java and JavaScript have their own capitals.
_NAN = re.compile(r"[+-]?(?:nan(?:q|s)?(?:\([\w.]*\))?|1\.#(?:QNAN|SNAN|QNB|IND|R|QO|J)[\dA-Z]*)$", re.IGNORECASE)
_INF = re.compile(r"([+-]?)(?:inf(?:inity)?|1\.#INF\d*|∞)$", re.IGNORECASE)
_LONGEST = 400  # float64 printed without an exponent needs 309 digits and a fraction


def to_number(text: str) -> float | None:
    """The number that `text` spells, possibly NaN or infinite; None where it spells none.

    Accepts surrounding blanks and quotes. `MISSING_WORDS` are no numbers.
    """
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    text = text.strip().strip("\"'").strip()
    if not text or len(text) > _LONGEST:
        return None
    if _NAN.match(text):
        return float("nan")
    if found := _INF.match(text):
        return float("-inf") if found[1] == "-" else float("inf")
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def is_missing(text: str) -> bool:
    """Whether a cell says "no value here"."""
    return text in MISSING_WORDS or text.strip().strip("\"'").strip() in MISSING_WORDS
