"""Object headers and heaps of an HDF5 file: the bytes under the tree."""

from __future__ import annotations

import struct

from ckptdoctor.checkpoints.hdf5.messages import unsigned
from ckptdoctor.checkpoints.hdf5.tree import Cut, Damaged, Hostile, Unsupported
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window

CONTINUATION = 0x10  # type of the message that names a header's next block

Message = tuple[int, int, bytes, int]  # type, flags, body, where the body stands

_MESSAGE_V1 = struct.Struct("<HHB3x")
_MESSAGE_V2 = struct.Struct("<BHB")


class Headers:
    """Reads at addresses, which count from `base`; `offsets` and `lengths` are the file's widths in bytes."""

    def __init__(self, window: Window, limits: ReadLimits) -> None:
        self.window, self.limits = window, limits
        self.base, self.offsets, self.lengths = 0, 8, 8
        self._budget = limits.hdf5_metadata_bytes
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    # --- bytes ---------------------------------------------------------------------------------

    def bytes_at(self, address: int, length: int) -> bytes:
        """Bytes at an address counted from the base; all of them or Cut."""
        self._budget -= length
        if self._budget < 0:
            raise Hostile(
                f"more than {self.limits.hdf5_metadata_bytes:,} bytes of metadata; see --limit hdf5_metadata_bytes"
            )
        data = self.window.read(self.base + address, length)
        if len(data) != length:
            raise Cut(f"bytes {address:,} to {address + length:,} lie beyond the end of the file")
        return data

    # --- object headers ------------------------------------------------------------------------

    def messages(self, address: int) -> list[Message]:
        """The messages of the object header at an address."""
        head = self.bytes_at(address, 16)
        if head[:4] == b"OHDR":
            return self._messages_v2(address, head)
        if head[0] != 1:
            raise Damaged(f"no object header at address {address:,}")
        count = int.from_bytes(head[2:4], "little")
        blocks = [(address + 16, int.from_bytes(head[8:12], "little"))]
        if count > self.limits.hdf5_messages:
            raise Hostile(f"an object header with {count:,} messages")
        found: list[Message] = []
        seen: set[int] = set()
        total = 0
        while blocks:
            start, size = blocks.pop(0)
            total += size
            if total > self.limits.hdf5_header_bytes:
                raise Hostile("an object header larger than allowed; see --limit hdf5_header_bytes")
            if start in seen:
                raise Damaged("an object header that continues in itself")
            seen.add(start)
            data = self.bytes_at(start, size)
            at = 0
            while at + 8 <= size and len(found) < count:
                kind, length, flags = _MESSAGE_V1.unpack_from(data, at)
                at += 8
                body = data[at : at + length]
                if len(body) != length:
                    raise Damaged("a header message that is longer than its block")
                if kind == CONTINUATION:
                    blocks.append(self._continuation(body))
                found.append((kind, flags, body, start + at))
                at += length
        return found

    def _messages_v2(self, address: int, head: bytes) -> list[Message]:
        if head[4] != 2:
            raise Unsupported(f"object header version {head[4]}")
        flags = head[5]
        at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = unsigned(self.bytes_at(address + at, width), 0, width)
        blocks = [(address + at + width, size)]
        ordered = 2 if flags & 4 else 0
        found: list[Message] = []
        seen: set[int] = set()
        total = 0
        while blocks:
            start, size = blocks.pop(0)
            total += size
            if total > self.limits.hdf5_header_bytes:
                raise Hostile("an object header larger than allowed; see --limit hdf5_header_bytes")
            if start in seen:
                raise Damaged("an object header that continues in itself")
            seen.add(start)
            data = self.bytes_at(start, size)
            at = 0
            while at + 4 + ordered <= size:
                kind, length, message_flags = _MESSAGE_V2.unpack_from(data, at)
                at += 4 + ordered
                body = data[at : at + length]
                if len(body) != length:
                    break  # the gap at a block's end may be shorter than a message
                if kind == CONTINUATION:
                    where, extent = self._continuation(body)
                    if self.bytes_at(where, 4) != b"OCHK":
                        raise Damaged("an object header continues where nothing continues it")
                    blocks.append((where + 4, max(0, extent - 8)))
                found.append((kind, message_flags, body, start + at))
                if len(found) > self.limits.hdf5_messages:
                    raise Hostile("an object header with too many messages")
                at += length
        return found

    def _continuation(self, body: bytes) -> tuple[int, int]:
        return unsigned(body, 0, self.offsets), unsigned(body, self.offsets, self.lengths)

    # --- global heap ---------------------------------------------------------------------------

    def heap_string(self, address: int, index: int, length: int) -> bytes:
        heap = self._heaps.get(address)
        if heap is None:
            heap = self._heaps[address] = self._global_heap(address)
        if index not in heap:
            raise Damaged("a text that is not in its heap")
        offset, size = heap[index]
        if length > size:
            raise Damaged("a text that is longer than its place in the heap")
        return self.bytes_at(offset, length)

    def _global_heap(self, address: int) -> dict[int, tuple[int, int]]:
        head = self.bytes_at(address, 8 + self.lengths)
        if head[:4] != b"GCOL":
            raise Damaged("the texts of attributes are overwritten")
        size = unsigned(head, 8, self.lengths)
        if size > self.limits.hdf5_metadata_bytes:
            raise Hostile(f"a heap of {size:,} bytes")
        found: dict[int, tuple[int, int]] = {}
        at = 8 + self.lengths
        step = 8 + self.lengths
        while at + step <= size and len(found) <= self.limits.hdf5_objects:
            entry = self.bytes_at(address + at, step)
            index, length = int.from_bytes(entry[:2], "little"), unsigned(entry, 8, self.lengths)
            if index == 0:
                break
            found[index] = (address + at + step, length)
            at += step + (length + 7) // 8 * 8
        return found
