"""The contained child: reads HDF5 with h5py, and nothing else. Run as a script, never imported by the package.

It has no file to open: every byte comes through standard input from the parent, which answers the ranges that libhdf5 asks
for. Before the first such byte it gives up the right to open files or sockets, to start processes, to write files, and to
use more than its share of memory and processor time.

Frames both ways are one byte of kind, eight of length (little-endian), then the payload. From here: R wants bytes
(offset, length), J is an answer, D data, E a sentence. From the parent: Q a question (JSON), B bytes, X the end.
"""

import json
import os
import struct
import sys

FRAME = struct.Struct("<cQ")
MAX_FRAME = 1 << 30
VALUES = 65_536  # entries of an attribute that are sent on


def send(kind, payload):
    data = FRAME.pack(kind, len(payload)) + payload
    while data:
        data = data[os.write(1, data) :]


def receive():
    head = exactly(FRAME.size)
    kind, length = FRAME.unpack(head)
    if length > MAX_FRAME:
        os._exit(3)
    return kind, exactly(length)


def exactly(count):
    parts = []
    while count:
        data = os.read(0, min(count, 1 << 20))
        if not data:
            os._exit(0)
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def confine(limits):
    """Give up everything that parsing does not need. Closed descriptors and a limit of three cut off files and network."""
    import resource

    os.closerange(3, 4096)
    with_memory = limits["memory"]
    pages = int(open("/proc/self/statm").read().split()[0]) if os.path.exists("/proc/self/statm") else 0  # noqa: SIM115, PTH110, PTH123
    os.closerange(3, 4096)
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_NOFILE, 3),
    ]
    if pages:
        bounds.append((resource.RLIMIT_AS, pages * resource.getpagesize() + with_memory))
    if hasattr(resource, "RLIMIT_NPROC"):
        bounds.append((resource.RLIMIT_NPROC, 0))
    for what, bound in bounds:
        try:
            resource.setrlimit(what, (bound, bound))
        except (OSError, ValueError):  # a platform that does not know the limit: the others still hold
            continue
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        library.unshare(0x40000000 | 0x10000000)  # CLONE_NEWNET | CLONE_NEWUSER
        library.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    except (OSError, AttributeError, ImportError):
        return


class Remote:
    """The parent's file, as h5py's file-object driver wants it."""

    def __init__(self, size):
        self.size, self.at = size, 0

    def seek(self, offset, whence=0):
        self.at = offset if whence == 0 else (self.at + offset if whence == 1 else self.size + offset)
        return self.at

    def tell(self):
        return self.at

    def readinto(self, buffer):
        view = memoryview(buffer).cast("B")
        send(b"R", struct.pack("<QQ", self.at, len(view)))
        kind, data = receive()
        if kind != b"B":
            os._exit(3)
        view[: len(data)] = data
        if len(data) < len(view):
            view[len(data) :] = bytes(len(view) - len(data))
        self.at += len(view)
        return len(view)

    def read(self, count=-1):
        data = bytearray(max(0, self.size - self.at) if count < 0 else count)
        self.readinto(data)
        return bytes(data)

    def write(self, data):
        raise OSError("read only")

    def truncate(self, size=None):
        raise OSError("read only")

    def flush(self):
        pass


def attributes(item, limit):
    found = {}
    for name in list(item.attrs)[:256]:
        try:
            handle = item.attrs.get_id(name)
            if handle.get_storage_size() > limit:
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


def plain(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None


def describe(item, kind_name):
    import h5py

    shape = item.shape if item.shape is not None else (0,)
    properties = item.id.get_create_plist()
    refused = None
    if item.is_virtual:
        refused = "is a virtual dataset, which takes its values from other files"
    elif properties.get_external_count():
        refused = "keeps its values in another file (external storage)"
    layout = properties.get_layout()
    storage = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}
    offset = None if refused else item.id.get_offset()
    return {
        "shape": [int(e) for e in shape],
        "dtype": kind_name,
        "width": int(item.id.get_type().get_size()),
        "storage": "refused" if refused else storage.get(layout, "other"),
        "offset": None if offset is None else int(offset),
        "stored": 0 if refused else int(item.id.get_storage_size()),
        "chunks": None if item.chunks is None else [int(c) for c in item.chunks],
        "refused": refused,
    }


def type_name(item):
    import h5py

    try:
        dtype = item.dtype
    except TypeError:
        return "?"
    if dtype.kind == "V" and item.id.get_type().get_class() == h5py.h5t.OPAQUE:
        return "opaque%d" % dtype.itemsize
    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    return dtype.str if dtype.names is None else "records"


def listing(handle, limits):
    """All objects, iteratively; soft and external links are told, not followed."""
    import h5py

    rows, problems = [], []
    seen = set()
    stack = [("", handle, 0)]
    while stack:
        path, group, depth = stack.pop()
        rows.append(
            {
                "path": path,
                "address": int(h5py.h5o.get_info(group.id).addr),
                "attributes": attributes(group, limits["attribute"]),
            }
        )
        if depth >= limits["depth"]:
            problems.append([path, "hostile", "groups are nested too deeply: not followed"])
            continue
        for name in group:
            where = path + "/" + name if path else name
            if len(rows) > limits["objects"]:
                raise ValueError("more objects in one file than allowed")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "symbolic" if isinstance(link, h5py.SoftLink) else "external"
                problems.append(
                    [where, "hostile", where + " is a " + kind + " link: Keras writes none, and it was not followed"]
                )
                continue
            try:
                item = group[name]
                address = int(h5py.h5o.get_info(item.id).addr)
            except Exception as error:  # noqa: BLE001 - damage stays with its object
                problems.append([where, "damaged", where + " cannot be read: " + str(error)[:200]])
                continue
            if address in seen:
                problems.append([where, "hostile", where + " is a second name of another object and was not followed"])
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                stack.append((where, item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                row = {"path": where, "address": address, "attributes": attributes(item, limits["attribute"])}
                row["dataset"] = describe(item, type_name(item))
                rows.append(row)
    return {"rows": rows, "problems": problems}


def block(handle, question):
    """The raw bytes of a hyperslab, in C order and the file's byte order."""
    import numpy as np

    item = handle[question["path"]]
    if item.is_virtual or item.id.get_create_plist().get_external_count():
        raise ValueError("refused")
    where = tuple(slice(s, s + c) for s, c in zip(question["start"], question["count"], strict=True))
    array = item[where] if where else item[()]
    return np.ascontiguousarray(array).tobytes()


def main():
    _, opening = receive()
    setup = json.loads(opening)
    sys.path[:] = setup["sys_path"]
    import h5py
    import numpy  # noqa: F401, ICN001 - imported before the right to open files is given up

    h5py.h5.get_config()
    confine(setup["limits"])
    handle = None
    while True:
        kind, payload = receive()
        if kind == b"X":
            os._exit(0)
        question = json.loads(payload)
        try:
            if handle is None:
                handle = h5py.File(Remote(setup["size"]), "r", rdcc_nbytes=1 << 24)
            if question["ask"] == "list":
                send(b"J", json.dumps(listing(handle, setup["limits"])).encode())
            else:
                send(b"D", block(handle, question))
        except MemoryError:
            send(b"E", b"it needs more memory than allowed")
        except Exception as error:  # noqa: BLE001 - whatever the library says becomes a sentence
            send(b"E", str(error).splitlines()[0][:300].encode() if str(error) else b"the HDF5 library refused it")


if __name__ == "__main__":
    main()
