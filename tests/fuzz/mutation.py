"""How one file becomes another: deterministic changes of bytes, lengths, documents and archives."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from ckptdoctor.logs.crc import masked_crc

BYTES = (0, 1, 2, 63, 64, 127, 128, 254, 255)
NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    0x7FFF,
    0xFFFF,
    1 << 20,
    1 << 24,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
TEXTS = (
    b"NaN",
    b"null",
    b"{}",
    b"[]",
    b"[" * 200,
    b'"',
    b"1e999",
    b"-1",
    b"\\u0000",
    b"\\ud800",
    b"../",
    b"9" * 5000,
    b"true",
    b"\x1b[31m",
    b"\r",
    b"\n",
    b"nan,",
    b"<script>",
)
WORDS = (
    "Lambda",
    "Dense",
    "Functional",
    "Sequential",
    "__lambda__",
    "function",
    "os",
    "keras.layers",
    "../x",
    "",
    "NaN",
    "Infinity",
    "\ud800",
    "\x00",
    "layers",
    "a" * 3000,
)
STEP = 4096


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The file after one to three changes; `other` is what splices come from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_CHANGES)(data, other, rng)
    return data


# --- bytes ---------------------------------------------------------------------------------------


def flipped_bits(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def changed_bytes(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if out else 0):
        out[rng.randrange(len(out))] = rng.choice((*BYTES, rng.randrange(256)))
    return bytes(out)


def overwritten(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    at, run = rng.randrange(len(data) + 1), rng.choice((4, 8, 16, 64, 512, 4096))
    return data[:at] + bytes([rng.choice(BYTES)]) * min(run, len(data) - at) + data[at + run :]


def cut(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[: rng.choice((at, at // STEP * STEP, at // 512 * 512))]


def spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at, start, run = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1), rng.choice((16, 256, STEP, 1 << 30))
    piece = other[start : start + run]
    return data[:at] + piece + data[at + (len(piece) if rng.random() < 0.7 else 0) :]


def inserted(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 40)) + data[at:]


def removed(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 4, 8, 100, STEP)) :]


def doubled(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    at, run = rng.randrange(len(data) + 1), rng.choice((1, 8, 100, STEP))
    return data[: at + run] + data[at : at + run] * rng.choice((1, 2, 50)) + data[at + run :]


def changed_length(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """A number of the format's own: near places that look like small little-endian integers."""
    width = rng.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    at = rng.randrange(len(data) - width + 1)
    for _ in range(64):  # a place that holds something like a count or an address
        if 0 < int.from_bytes(data[at : at + width], "little") <= len(data):
            break
        at = rng.randrange(len(data) - width + 1)
    value = int.from_bytes(data[at : at + width], "little")
    new = rng.choice((*NUMBERS, value + 1, value - 1, value * 2, value // 2, len(data), len(data) - 1, value ^ 0x80))
    return data[:at] + (new & ((1 << 8 * width) - 1)).to_bytes(width, "little") + data[at + width :]


def text_noise(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Noise where documents and tables have their separators."""
    hits = [i for i in range(min(len(data), 1 << 16)) if data[i] in b'{}[]",:;=\n'] or [rng.randrange(len(data) + 1)]
    at = rng.choice(hits)
    return data[:at] + rng.choice(TEXTS) + data[at + rng.choice((0, 1)) :]


# --- documents -------------------------------------------------------------------------------------


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {rng.choice(WORDS): junk(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (
        None,
        rng.random() < 0.5,
        rng.choice((0, -1, 1 << 31, 1 << 63, 10**40, -(10**400))),
        rng.choice((0.5, float("nan"), float("inf"), -1e308)),
        rng.choice(WORDS),
        [],
        {},
    )[kind]


def changed_document(text: bytes, rng: random.Random) -> bytes:
    """A JSON document with some of its parts replaced, doubled, renamed or removed."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(rng.choice((1, 1, 2, 5))):
        places: list[tuple[Any, Any]] = []
        stack = [document]
        while stack:
            node = stack.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            places += [(node, key) for key in keys]
            stack += [node[key] for key in keys if isinstance(node[key], (dict, list))]
        if not places:
            return json.dumps(junk(rng)).encode()
        node, key = rng.choice(places)
        what = rng.randrange(5)
        if what <= 1:
            node[key] = junk(rng)
        elif what == 2:
            del node[key]
        elif what == 3:
            source, other = rng.choice(places)
            if isinstance(source, dict) == (other in source if isinstance(source, dict) else isinstance(source, dict)):
                node[key] = json.loads(json.dumps(source[other])) if isinstance(source, dict) else junk(rng)
        elif isinstance(node, dict):
            node[rng.choice(WORDS)] = node[key]
        else:
            node.insert(key, node[key])
    return json.dumps(document).encode()


def document_in_place(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """A value of an embedded document replaced by one of the same length: lengths around it stay true."""
    hits = [
        i for i in range(len(data) - 3) if data[i : i + 2] in (b": ", b", ") and data[i + 2] in b'"[{tfn0123456789-'
    ]
    if not hits:
        return data
    at = rng.choice(hits[:5000]) + 2
    end = at
    while end < len(data) and data[end] not in b",}]" and end - at < 80:
        end += 1
    new = rng.choice((b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b'"Lambda"', b"9" * (end - at)))
    return data[:at] + new[: end - at].ljust(end - at) + data[end:]


# --- archives and records -----------------------------------------------------------------------------


def repacked(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A zip archive with one member changed and its checksums right again; other files as `mutate` does."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        zlib.error,
    ):
        return changed_bytes(data, other, rng)
    if not members:
        return data
    victim = rng.choice(list(members))
    content = members[victim]
    if content[:1] in (b"{", b"[") and rng.random() < 0.8:
        content = changed_document(content, rng)
    elif content[:6] == b"\x93NUMPY" and rng.random() < 0.6:
        content = _header_noise(content, rng)
    else:
        content = rng.choice(_INNER)(content, other, rng)
    members[victim] = content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body, archive.compression)
    return buffer.getvalue()


def _header_noise(content: bytes, rng: random.Random) -> bytes:
    """An `.npy` whose header says something else, of the same length."""
    size = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + size]
    swaps = (
        (b"'<f4'", b"'|O' "),
        (b"'<f4'", b"'<U9'"),
        (b"'<f4'", b"'>f8'"),
        (b"'<f4'", b"'|V4'"),
        (b"False", b"True "),
        (b"(", b"(9"),
        (b"shape", b"shap3"),
        (b",)", b")) "),
        (b"{", b"["),
        (b"), }", b"), 'a':" + b"(" * 60 + b"}"),
        (b"(", b"(" + b"9" * 30 + b","),
        (b"(", b"(-1,"),
    )
    old, new = rng.choice(swaps)
    header = header.replace(old, new, 1)[:size].ljust(size)
    return content[:10] + header + content[10 + size :]


def resealed(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """An event file with one record changed and its checksums right again."""
    records, at = [], 0
    while at + 16 <= len(data) and len(records) < 2000:
        length = int.from_bytes(data[at : at + 8], "little")
        if at + 16 + length > len(data):
            break
        records.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    if not records:
        return changed_bytes(data, other, rng)
    victim = rng.randrange(len(records))
    records[victim] = rng.choice(_INNER)(records[victim], other[:1000], rng)
    return b"".join(_record(r) for r in records)


def _record(body: bytes) -> bytes:
    head = struct.pack("<Q", len(body))
    return head + _sum(head) + body + _sum(body)


def _sum(raw: bytes) -> bytes:
    return int(masked_crc(np.frombuffer(raw, np.uint8)[None, :])[0]).to_bytes(4, "little")


_INNER = (
    flipped_bits,
    changed_bytes,
    overwritten,
    cut,
    changed_length,
    changed_length,
    text_noise,
    document_in_place,
    spliced,
)
_CHANGES = (*_INNER, inserted, removed, doubled)
