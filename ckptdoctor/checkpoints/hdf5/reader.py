"""Walks an HDF5 file from its superblock: iteratively, bounded, each object on its own so that damage stays local."""

from __future__ import annotations

from typing import Any

from ckptdoctor.checkpoints.hdf5.groups import LINK, LINK_INFO, SYMBOL_TABLE, Groups
from ckptdoctor.checkpoints.hdf5.headers import Message
from ckptdoctor.checkpoints.hdf5.messages import (
    Layout,
    attribute,
    dataspace,
    datatype,
    defined,
    layout,
    tensor_bytes,
    unsigned,
)
from ckptdoctor.checkpoints.hdf5.tree import (
    Damaged,
    H5Dataset,
    H5Error,
    H5Group,
    H5Tree,
    Hostile,
    Unsupported,
    find_signature,
)
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS, ReadLimits
from ckptdoctor.checkpoints.sources import Window
from ckptdoctor.model import ProblemKind

# message types
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT = 0x1, 0x3, 0x7, 0x8
_ATTRIBUTE, _ATTRIBUTE_INFO = 0xC, 0x15
_SHARED = 2  # flag: the body stands elsewhere


def read_tree(window: Window, limits: ReadLimits = DEFAULT_LIMITS) -> H5Tree:
    """Everything that can be located in an HDF5 file.

    Damage inside is reported in `problems`; what is not damaged is still returned.

    Raises:
        Unsupported: parts of the format that only the library knows.
        Damaged: not even the superblock can be read.
        Hostile: beyond a limit as a whole.
    """
    return Reader(window, limits).read()


TOP_LEVELS = 4  # deep enough to meet a group named `vars` in any Keras file
TOP_OBJECTS = 40


def read_top(window: Window, limits: ReadLimits = DEFAULT_LIMITS) -> H5Tree:
    """The first few groups of an HDF5 file, to tell what it is. Raises as `read_tree`."""
    return Reader(window, limits, sample=True).read()


class Reader(Groups):
    def __init__(self, window: Window, limits: ReadLimits, *, sample: bool = False) -> None:
        super().__init__(window, limits)
        self.sample = sample
        self.seen: dict[int, str] = {}
        self._objects = 0

    # --- superblock ----------------------------------------------------------------------------

    def read(self) -> H5Tree:
        start = find_signature(self.window)
        if start is None:
            raise Damaged("there is no HDF5 signature")
        root = self._superblock(start)
        self._walk(root)
        if not self.tree.complete and not self.sample:
            self._recover()
        self.tree.datasets.sort(key=lambda d: d.address)
        return self.tree

    def _superblock(self, start: int) -> int:
        head = self.window.read(start + 8, 100)
        version = unsigned(head, 0, 1)
        if version in (0, 1):
            self.offsets, self.lengths = unsigned(head, 5, 1), unsigned(head, 6, 1)
            at = 16 if version == 0 else 20
        elif version in (2, 3):
            self.offsets, self.lengths = unsigned(head, 1, 1), unsigned(head, 2, 1)
            at = 4
        else:
            raise Unsupported(f"HDF5 superblock version {version}")
        if self.offsets not in (2, 4, 8) or self.lengths not in (2, 4, 8):
            raise Damaged(f"the HDF5 superblock gives addresses {self.offsets} and lengths {self.lengths} bytes")
        width = self.offsets
        self.base = unsigned(head, at, width)
        if self.base not in (0, start):
            self.base = start
        end_of_file = unsigned(head, at + 2 * width, width)
        self.tree.declared_bytes = end_of_file
        if version < 2:
            return unsigned(head, at + 4 * width + width, width)
        return unsigned(head, at + 3 * width, width)

    # --- the tree ------------------------------------------------------------------------------

    def _walk(self, root: int) -> None:
        stack: list[tuple[str, int, int]] = [("", root, 0)]
        seen = self.seen
        while stack:
            path, address, depth = stack.pop()
            if address in seen:
                self._problem(
                    ProblemKind.HOSTILE,
                    f"{path or '/'} is a second name of {seen[address] or '/'} and was not followed",
                    path,
                )
                continue
            seen[address] = path
            self._objects += 1
            if self.sample and (self._objects > TOP_OBJECTS or depth > TOP_LEVELS):
                continue
            if self._objects > self.limits.hdf5_objects:
                raise Hostile(f"more than {self.limits.hdf5_objects:,} objects in one file; see --limit hdf5_objects")
            try:
                children = self._object(path, address)
            except Unsupported:
                raise
            except H5Error as error:
                if path == "":
                    raise
                self._lose(path, error)
                continue
            if children and depth >= self.limits.hdf5_depth:
                self._problem(
                    ProblemKind.HOSTILE,
                    f"groups are nested deeper than {self.limits.hdf5_depth}: not followed; see --limit hdf5_depth",
                    path,
                )
                self.tree.complete = False
                continue
            prefix = f"{path}/" if path else ""
            stack.extend((prefix + name, child, depth + 1) for name, child in reversed(children))

    def _lose(self, path: str, error: H5Error) -> None:
        self.tree.complete = False
        self.tree.lost.append(path)
        kind = ProblemKind.HOSTILE if isinstance(error, Hostile) else ProblemKind.DAMAGED
        self._problem(kind, f"{path} cannot be read: {error}", path)

    def _recover(self) -> None:
        from ckptdoctor.checkpoints.hdf5.recover import recover

        found = recover(self)
        if found:
            self._problem(
                ProblemKind.DAMAGED, f"{found:,} tensors that nothing in the file leads to were found by searching", ""
            )

    def parse(self, address: int) -> H5Dataset | tuple[H5Group, list[tuple[str, int]]]:
        """One object on its own, without recording it or what is wrong with it.

        Raises:
            H5Error: no object header stands there.
        """
        told = len(self.tree.problems)
        try:
            item = self._read("", address)
            if isinstance(item, H5Dataset):
                return item
            group, messages = item
            return group, self._links("", messages)
        finally:
            del self.tree.problems[told:]

    def _read(self, path: str, address: int) -> H5Dataset | tuple[H5Group, list[Message]]:
        messages = self.messages(address)
        attributes = self._attributes(path, messages)
        by_type: dict[int, tuple[int, bytes, int]] = {}
        for kind, flags, body, where in messages:
            by_type.setdefault(kind, (flags, body, where))  # of two, the library takes the first
        if _DATASPACE in by_type and (_LAYOUT in by_type or _EXTERNAL in by_type):
            return self._dataset(path, address, by_type, attributes)
        if not {SYMBOL_TABLE, LINK_INFO, LINK} & by_type.keys() and path:
            raise Damaged("neither a group nor a dataset")
        return H5Group(path, address, attributes), messages

    def _object(self, path: str, address: int) -> list[tuple[str, int]]:
        """Record one object; the links of a group."""
        item = self._read(path, address)
        if isinstance(item, H5Dataset):
            self.tree.datasets.append(item)
            return []
        self.tree.groups[path], messages = item
        try:
            return self._distinct(path, self._links(path, messages))
        except Unsupported:
            raise
        except H5Error as error:
            self.tree.complete = False
            self._problem(ProblemKind.DAMAGED, f"the members of {path or '/'} cannot be listed: {error}", path)
        return []

    def _attributes(self, path: str, messages: list[Message]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, flags, body, _ in messages:
            if kind == _ATTRIBUTE:
                if flags & _SHARED:
                    raise Unsupported("a shared attribute")
                try:
                    name, value = attribute(body, self.offsets, self.lengths, self.limits, self.heap_string)
                except Unsupported:
                    raise
                except H5Error as error:
                    bad = ProblemKind.HOSTILE if isinstance(error, Hostile) else ProblemKind.DAMAGED
                    self._problem(bad, f"an attribute of {path or '/'} cannot be read: {error}", path)
                    continue
                if name in found:  # the library, and so Keras, takes the first
                    sentence = f"{path or '/'} has two attributes named {name[:80]!r}: the first one is shown"
                    self._problem(ProblemKind.HOSTILE, sentence, path)
                    continue
                found[name] = value
            elif kind == _ATTRIBUTE_INFO:
                at = 2 + (2 if unsigned(body, 1, 1) & 1 else 0)
                if defined(unsigned(body, at, self.offsets), self.offsets) is not None:
                    raise Unsupported("attributes in a fractal heap")
        return found

    # --- datasets ------------------------------------------------------------------------------

    def _dataset(
        self, path: str, address: int, by_type: dict[int, tuple[int, bytes, int]], attributes: dict[str, Any]
    ) -> H5Dataset:
        if _DATATYPE not in by_type:
            raise Damaged("a dataset without a datatype")
        for kind in (_DATASPACE, _DATATYPE):
            if by_type[kind][0] & _SHARED:
                raise Unsupported("a shared datatype")
        shape = dataspace(by_type[_DATASPACE][1], self.lengths, self.limits)
        stored = datatype(by_type[_DATATYPE][1])
        if shape is None:
            shape = (0,)
        nbytes = tensor_bytes(shape, stored.size)
        name, numeric = _entry_name(stored.kind, stored.name, stored.size, attributes)
        if _EXTERNAL in by_type:
            return self._refused(
                path, address, shape, name, nbytes, "keeps its values in another file (external storage)"
            )
        try:
            place = layout(by_type[_LAYOUT][1], by_type[_LAYOUT][2], self.offsets, self.lengths)
        except Hostile as error:
            return self._refused(path, address, shape, name, nbytes, f"is {error}")
        if place.storage == "contiguous" and place.size not in (None, nbytes) and nbytes > self.window.size:
            why = f"declares {nbytes:,} bytes, more than the whole file has (a shape bomb, CVE-2026-0897)"
            return self._refused(path, address, shape, name, nbytes, why)
        offset, problem = self._locate(path, place, nbytes)
        storage = place.storage if place.storage == "chunked" or place.address is not None else "unwritten"
        return H5Dataset(path, address, shape, name, numeric, nbytes, offset, storage, attributes, problem)

    def _refused(self, path: str, address: int, shape: tuple[int, ...], dtype: str, nbytes: int, why: str) -> H5Dataset:
        sentence = f"{path} {why}: Keras never writes this, and it was not read"
        self._problem(ProblemKind.HOSTILE, sentence, path)
        return H5Dataset(path, address, shape, dtype, True, nbytes, None, "refused", {}, sentence)

    def _locate(self, path: str, place: Layout, nbytes: int) -> tuple[int | None, str | None]:
        """Offset of the bytes from the start of the window, and what is wrong with them."""
        if place.storage == "chunked":
            return None, None
        if nbytes == 0:
            return 0, None
        if place.address is None:
            problem = f"{path} declares {nbytes:,} bytes but none were ever written"
        elif place.size is not None and place.size != nbytes:
            problem = f"{path} declares {nbytes:,} bytes by its shape and dtype but stores {place.size:,}"
        elif self.base + place.address + nbytes > self.window.size:
            missing = self.base + place.address + nbytes - self.window.size
            problem = (
                f"{path} lies beyond the end of the file: {min(missing, nbytes):,} of its {nbytes:,} bytes are missing"
            )
        else:
            return self.base + place.address, None
        self._problem(ProblemKind.DAMAGED, problem, path)
        return None, problem


def _entry_name(kind: str, name: str, size: int, attributes: dict[str, Any]) -> tuple[str, bool]:
    """The dtype for `TensorInfo`: Keras notes what raw entries are in the attribute `dtype`."""
    from ckptdoctor.checkpoints.dtypes import is_known, itemsize

    note = attributes.get("dtype")
    if (
        kind in ("opaque", "number")
        and isinstance(note, str)
        and note != name
        and is_known(note)
        and itemsize(note) == size
    ):
        return note, True
    if kind == "opaque":
        return name, is_known(name)
    return name, kind == "number"
