"""The contained child that reads HDF5 with h5py. Run as a script, never imported by the package.

It has no file to open: every byte comes through standard input from the parent, which answers the ranges that libhdf5 asks
for. Before the first such byte it gives up files, sockets and more than its share of memory and processor time. Importing
h5py is what it costs, so that is done once: each file is read by a fresh copy of the process that imported it.

Frames both ways are one byte of kind, eight of length (little-endian), then the payload. From here: R wants bytes
(offset, length), J is an answer, D data, E a sentence. From the parent: Q a question (JSON), B bytes.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from confined import (  # type: ignore[import-not-found]  # noqa: E402
    confine,
    cut_network,
    leave,
    one_process_each,
    question,
    receive,
    send,
)

VALUES = 65_536  # entries of an attribute that are sent on
ATTRIBUTES = 256  # attributes of one object that are sent on


class Remote:
    """The parent's file, as h5py's file-object driver wants it."""

    def __init__(self, size: int) -> None:
        self.size, self.at = size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; nothing is read."""
        self.at = (0, self.at, self.size)[whence] + offset
        return self.at

    def tell(self) -> int:
        """Where the next read starts."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the parent; zeros behind the end."""
        view = memoryview(buffer).cast("B")
        send(b"R", struct.pack("<QQ", self.at, len(view)))
        kind, data = receive()
        if kind != b"B" or len(data) > len(view):
            leave(3)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        self.at += len(view)
        return len(view)

    def read(self, count: int = -1) -> bytes:
        """Bytes from here."""
        data = bytearray(max(0, self.size - self.at) if count < 0 else count)
        self.readinto(data)
        return bytes(data)

    def write(self, _data: bytes) -> int:
        """Never."""
        raise OSError("read only")

    def truncate(self, _size: int | None = None) -> int:
        """Never."""
        raise OSError("read only")

    def flush(self) -> None:
        """Nothing is held back."""


def attributes(item: Any, limit: int) -> dict[str, Any]:
    """Texts, numbers and lists of them; what is larger or of another type is left out."""
    found: dict[str, Any] = {}
    for name in list(item.attrs)[:ATTRIBUTES]:
        try:
            if item.attrs.get_id(name).get_storage_size() > limit:
                continue
            value = item.attrs[name]
        except Exception:  # noqa: BLE001, S112 - one bad attribute hides no other
            continue
        if hasattr(value, "tolist"):
            if getattr(value, "size", 1) > VALUES:
                continue
            value = value.tolist()
        value = plain(value)
        if value is not None:
            found[str(name)] = value
    return found


def plain(value: Any) -> Any:
    """What JSON can carry, None for the rest."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None


def describe(item: Any) -> dict[str, Any]:
    """A dataset without its values."""
    import h5py

    properties = item.id.get_create_plist()
    refused = None
    if item.is_virtual:
        refused = "is a virtual dataset, which takes its values from other files"
    elif properties.get_external_count():
        refused = "keeps its values in another file (external storage)"
    names = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}
    offset = None if refused else item.id.get_offset()
    return {
        "shape": [int(e) for e in (item.shape if item.shape is not None else (0,))],
        "dtype": type_name(item),
        "width": int(item.id.get_type().get_size()),
        "storage": "refused" if refused else names.get(properties.get_layout(), "other"),
        "offset": None if offset is None else int(offset),
        "stored": 0 if refused else int(item.id.get_storage_size()),
        "chunks": None if item.chunks is None else [int(c) for c in item.chunks],
        "refused": refused,
    }


def type_name(item: Any) -> str:
    """The code of a number in numpy, or what the entries are instead."""
    import h5py

    try:
        dtype = item.dtype
    except TypeError:
        return "entries of a type that numpy lacks"
    if dtype.kind == "V" and item.id.get_type().get_class() == h5py.h5t.OPAQUE:
        return f"opaque{dtype.itemsize}"
    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    return "records" if dtype.names is not None else str(dtype.str)


def listing(handle: Any, limits: dict[str, Any]) -> dict[str, Any]:
    """All objects, iteratively; soft and external links are told, not followed."""
    import h5py

    rows: list[dict[str, Any]] = []
    problems: list[list[str]] = []
    seen: set[int] = set()
    stack = [("", handle, 0)]
    while stack:
        path, group, depth = stack.pop()
        address = int(h5py.h5o.get_info(group.id).addr)
        rows.append({"path": path, "address": address, "attributes": attributes(group, limits["attribute"])})
        if depth >= limits["depth"]:
            problems.append([path, "hostile", "groups are nested too deeply: not followed"])
            continue
        for name in group:
            where = f"{path}/{name}" if path else name
            if len(rows) > limits["objects"]:
                raise ValueError("more objects in one file than allowed; see --limit hdf5_objects")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "symbolic" if isinstance(link, h5py.SoftLink) else "external"
                problems.append(
                    [where, "hostile", f"{where} is a {kind} link: Keras writes none, and it was not followed"]
                )
                continue
            try:
                item = group[name]
                address = int(h5py.h5o.get_info(item.id).addr)
                if address in seen:
                    problems.append([where, "hostile", f"{where} is a second name of another object: not followed"])
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    stack.append((where, item, depth + 1))
                elif isinstance(item, h5py.Dataset):
                    held = attributes(item, limits["attribute"])
                    rows.append({"path": where, "address": address, "attributes": held, "dataset": describe(item)})
            except Exception as error:  # noqa: BLE001 - damage stays with its object
                problems.append([where, "damaged", f"{where} cannot be read: {str(error)[:200]}"])
    return {"rows": rows, "problems": problems}


def block(handle: Any, asked: dict[str, Any]) -> bytes:
    """The raw bytes of a hyperslab, in C order and the file's byte order."""
    import numpy as np

    item = handle[asked["path"]]
    if item.is_virtual or item.id.get_create_plist().get_external_count():
        raise ValueError("the values stand in another file")
    where = tuple(slice(s, s + c) for s, c in zip(asked["start"], asked["count"], strict=True))
    return bytes(np.ascontiguousarray(item[where] if where else item[()]).tobytes())


def import_h5py() -> None:
    """Import h5py without what reading does not need: a program that tells the processor's name, numpy's documentation."""
    import platform
    import types

    if hasattr(os, "uname"):  # importing h5py asks `platform` for the processor, which would start `uname -p` to know
        vars(platform.uname())["processor"] = os.uname().machine
    for name in ("_add_newdocs", "_add_newdocs_scalars"):  # a tenth of the whole import
        sys.modules[f"numpy._core.{name}"] = types.ModuleType(name)
    import h5py

    h5py.h5.get_config()


def main() -> None:
    """Answer questions until the parent ends."""
    cut_network()
    setup = question()
    sys.path[:] = setup["sys_path"]
    import_h5py()
    if len(sys.argv) > 1:
        setup = one_process_each(setup, told=int(sys.argv[1]))
    confine(setup["limits"], descriptors=3)
    serve(setup)


def serve(setup: dict[str, Any]) -> None:
    """One file: its listing, and blocks of its tensors."""
    import h5py

    handle = None
    while True:
        asked = question()
        try:
            if handle is None:
                handle = h5py.File(Remote(setup["size"]), "r", rdcc_nbytes=1 << 24)
            if asked["ask"] == "list":
                send(b"J", json.dumps(listing(handle, setup["limits"])).encode())
            else:
                send(b"D", block(handle, asked))
        except MemoryError:
            send(b"E", b"it needs more memory than allowed; see --limit child_memory_bytes")
        except Exception as error:  # noqa: BLE001 - whatever the library says becomes a sentence
            send(b"E", (str(error).splitlines() or ["it refused the file"])[0][:300].encode())


if __name__ == "__main__":
    main()
