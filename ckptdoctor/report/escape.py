"""Making a stranger's text harmless where it is shown. Each output has its own dangers and its own function here."""

from __future__ import annotations

import re
from functools import cache

_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 and C1 controls, DEL, line separators, and the marks that reorder or hide text (bidirectional overrides and
# isolates, zero-width characters, byte order mark, language tags), and the code points that are no characters, which HTML
# and XML do not allow.
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f\ufdd0-\ufdef"
) + "".join(f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
_UNSAFE_BLOCK = re.compile(f"[{_HIDDEN}\ud800-\udfff]")
_UNSAFE_LINE = re.compile(f"[\t\n{_HIDDEN}\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: object) -> str:
    r"""One line of visible text: control, reordering and invisible characters become escapes such as `\\x1b`."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE_LINE.sub(_escape, text)


def block(text: object) -> str:
    r"""As `line`, but line breaks (all written as `\\n`) and tabs stay."""
    text = str(text).replace("\r\n", "\n")
    return _UNSAFE_BLOCK.sub(_escape, text)


def well_formed(text: object) -> str:
    r"""Text that UTF-8 can encode: bytes of file names that were no UTF-8 become `\\xff`."""
    return _SURROGATE.sub(_byte, str(text))


def _byte(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


# --- Markdown --------------------------------------------------------------------------------------

# Escaped or not, issue trackers turn `@name`, `#12`, `http://…` and `www.…` in running text into mentions and links;
# a zero-width space in between stops them.
_MD_ACTIVE = re.compile(r"(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)|(?<=GH)(?=-\d)", re.IGNORECASE)
_MD_ESCAPES = set("\\`*_[]|~$")
_MD_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_CODE = re.compile("`([^`]+)`")


def markdown(text: object) -> str:
    """Text as Markdown prose in which nothing is active: no HTML, mention, issue reference or link.

    Words between backticks, as messages have them, become code spans, whose content is inert as well.
    """
    parts = _CODE.split(line(text))  # every second part stood between backticks
    out = "".join(markdown_code(part) if n % 2 else _md_prose(part) for n, part in enumerate(parts)).strip()
    # What would begin a heading, a list, a rule or an underline at the start of a line.
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^([#+\-=])", r"\\\1", out))


def _md_prose(text: str) -> str:
    quiet = _MD_ACTIVE.sub("\0", text)
    escaped = "".join(_MD_ENTITIES.get(c) or ("\\" + c if c in _MD_ESCAPES else c) for c in quiet)
    return escaped.replace("\0", "&#8203;")


def markdown_code(text: object) -> str:
    """Text as a Markdown code span, also inside a table cell."""
    content = line(text).replace("|", "\\|")
    if not content:
        return ""
    ticks = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * (ticks + 1)
    pad = " " if content[0] in "` " or content[-1] in "` " else ""
    return f"{fence}{pad}{content}{pad}{fence}"


def markdown_fence(text: object, language: str = "") -> str:
    """Text as a fenced Markdown code block that its content cannot end."""
    content = block(text).rstrip("\n")
    ticks = max((len(run) for run in re.findall("`{3,}", content)), default=2)
    fence = "`" * (ticks + 1)
    return f"{fence}{language}\n{content}\n{fence}"


# --- GitHub workflow commands ------------------------------------------------------------------------


def annotation_message(text: object) -> str:
    """The message of a workflow command: it cannot end the command or start another."""
    return block(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def annotation_property(text: object) -> str:
    """A property of a workflow command: it cannot add another property either."""
    return annotation_message(line(text)).replace(":", "%3A").replace(",", "%2C")


# --- file names ----------------------------------------------------------------------------------------

_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
)
_NAME_BYTES = 120  # well below the 255 bytes of common file systems, with room for suffixes and temporary names


@cache
def _not_in_names() -> re.Pattern[str]:
    return re.compile(r"[^\w.\-+]+")


def file_name(text: str) -> str:
    """A harmless file name made of a stranger's: letters, digits and `._-+`, no leading dot or dash, never empty."""
    name = _not_in_names().sub("_", well_formed(text)).strip("_").lstrip(".-+_")
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore").rstrip(". ")
    if not name:
        return "report"
    return f"_{name}" if name.split(".")[0].lower() in _RESERVED else name
