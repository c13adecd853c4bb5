"""The contained child that reads Orbax stores with tensorstore. Run as a script, never imported by the package.

Frames as in `h5_child`. It may open files, because a store is a directory of them, but not write, and it has no network.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from confined import confine, cut_network, question, send  # type: ignore[import-not-found]  # noqa: E402

DESCRIPTORS = 512  # a store keeps a few dozen files open


def store(setup: dict[str, Any], key: str) -> Any:
    """One array, opened for reading."""
    import tensorstore as ts

    base = "file://" + setup["directory"]
    kvstore = (
        {"driver": "ocdbt", "base": base, "path": key}
        if setup["ocdbt"]
        else {"driver": "file", "path": f"{setup['directory']}/{key}/"}
    )
    spec = {"driver": "zarr3" if setup["zarr3"] else "zarr", "kvstore": kvstore}
    return ts.open(spec, open=True, read=True, context=ts.Context({"cache_pool": {"total_bytes_limit": 0}})).result()


def listing(setup: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Shape, dtype and chunk shape of each array that can be opened, an error for each that cannot."""
    rows: dict[str, Any] = {}
    for key in keys:
        try:
            array = store(setup, key)
            chunk = array.chunk_layout.read_chunk.shape
            rows[key] = {
                "shape": [int(e) for e in array.shape],
                "dtype": str(array.dtype.name),
                "chunks": None if chunk is None else [int(c) for c in chunk],
            }
        except Exception as error:  # noqa: BLE001 - one bad array hides no other
            rows[key] = {"error": (str(error).splitlines() or ["it cannot be opened"])[0][:200]}
    return {"rows": rows}


def block(setup: dict[str, Any], asked: dict[str, Any]) -> bytes:
    """The bytes of a hyperslab in C order, little-endian."""
    import numpy as np

    array = store(setup, asked["key"])
    where = tuple(slice(s, s + c) for s, c in zip(asked["start"], asked["count"], strict=True))
    values = np.ascontiguousarray((array[where] if where else array).read().result())
    if values.dtype.byteorder == ">":
        values = values.byteswap()
    return bytes(values.tobytes())


def main() -> None:
    """Answer questions until the parent ends."""
    cut_network()
    setup = question()
    sys.path[:] = setup["sys_path"]
    import tensorstore  # noqa: F401 - imported before the limits

    confine(setup["limits"], descriptors=DESCRIPTORS)
    while True:
        asked = question()
        try:
            if asked["ask"] == "list":
                send(b"J", json.dumps(listing(setup, asked["keys"])).encode())
            else:
                send(b"D", block(setup, asked))
        except MemoryError:
            send(b"E", b"it needs more memory than allowed; see --limit child_memory_bytes")
        except Exception as error:  # noqa: BLE001 - whatever the library says becomes a sentence
            send(b"E", (str(error).splitlines() or ["it refused the store"])[0][:300].encode())


if __name__ == "__main__":
    main()
