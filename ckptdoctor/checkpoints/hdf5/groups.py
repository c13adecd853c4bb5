"""Members of groups: symbol tables of the older layout, link messages of the newer one. Links that lead elsewhere are told."""

from __future__ import annotations

from ckptdoctor.checkpoints.hdf5.headers import Headers, Message
from ckptdoctor.checkpoints.hdf5.messages import defined, unsigned
from ckptdoctor.checkpoints.hdf5.tree import Damaged, H5Error, H5Tree, Hostile, Unsupported
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window
from ckptdoctor.model import Problem, ProblemKind

MAX_PROBLEMS = 100  # a file with more is described well enough by these
MAX_NAME = 4096  # bytes in the name of one link

LINK_INFO, LINK, SYMBOL_TABLE = 0x2, 0x6, 0x11  # message types


class Groups(Headers):
    """Lists the members of a group; what is wrong with them goes into `tree.problems`."""

    def __init__(self, window: Window, limits: ReadLimits) -> None:
        super().__init__(window, limits)
        self.tree = H5Tree(actual_bytes=window.size)

    def _links(self, path: str, messages: list[Message]) -> list[tuple[str, int]]:
        table = next((body for kind, _, body, _ in messages if kind == SYMBOL_TABLE), None)
        if table is not None:
            return self._symbol_table(path, table)
        info = next((body for kind, _, body, _ in messages if kind == LINK_INFO), None)
        return self._link_messages(path, messages, info)

    def _distinct(self, path: str, links: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """The members without those that stand again under one name: which of them a library opens is anybody's guess."""
        found: dict[str, int] = {}
        for name, address in links:
            if name in found:
                where = f"{path}/{name}" if path else name
                self._problem(
                    ProblemKind.HOSTILE, f"{where} stands twice under one name: the first one is shown", where
                )
            else:
                found[name] = address
        return list(found.items())

    def _problem(self, kind: ProblemKind, message: str, where: str) -> None:
        if len(self.tree.problems) < MAX_PROBLEMS:
            self.tree.problems.append(Problem(kind, message, where))

    # --- groups --------------------------------------------------------------------------------

    def _symbol_table(self, path: str, body: bytes) -> list[tuple[str, int]]:
        tree, heap = unsigned(body, 0, self.offsets), unsigned(body, self.offsets, self.offsets)
        names = self._local_heap(heap)
        found: list[tuple[str, int]] = []
        nodes, seen = [tree], set[int]()
        while nodes:
            node = nodes.pop()
            if node in seen:
                raise Damaged("a group's index that refers to itself")
            seen.add(node)
            if len(seen) > self.limits.hdf5_objects:
                raise Hostile("a group's index with too many nodes")
            try:
                self._symbol_node(path, node, names, nodes, found)
            except Unsupported:
                raise
            except H5Error as error:
                self.tree.complete = False
                self._problem(ProblemKind.DAMAGED, f"some members of {path or '/'} cannot be listed: {error}", path)
            if len(found) > self.limits.hdf5_objects:
                raise Hostile("a group with too many members")
        return found

    def _symbol_node(self, path: str, node: int, names: bytes, nodes: list[int], found: list[tuple[str, int]]) -> None:
        head = self.bytes_at(node, 8)
        if head[:4] == b"TREE":
            if head[4] != 0:
                raise Damaged("a group's index of the wrong kind")
            used = int.from_bytes(head[6:8], "little")
            width = self.lengths + self.offsets
            data = self.bytes_at(node + 8 + 2 * self.offsets, used * width)
            nodes.extend(unsigned(data, i * width + self.lengths, self.offsets) for i in range(used - 1, -1, -1))
            return
        if head[:4] != b"SNOD":
            raise Damaged("a group's index is overwritten")
        used = int.from_bytes(head[6:8], "little")
        width = 2 * self.offsets + 24
        data = self.bytes_at(node + 8, used * width)
        for i in range(used):
            at = i * width
            name = self._heap_name(names, unsigned(data, at, self.offsets))
            if unsigned(data, at + 2 * self.offsets, 4) == 2:  # cache type 2: a symbolic link
                self._refuse_link(path, name, "symbolic")
            elif name:
                found.append((name, unsigned(data, at + self.offsets, self.offsets)))

    def _local_heap(self, address: int) -> bytes:
        head = self.bytes_at(address, 8 + 2 * self.lengths + self.offsets)
        if head[:4] != b"HEAP":
            raise Damaged("a group's names are overwritten")
        size = unsigned(head, 8, self.lengths)
        if size > self.limits.hdf5_attribute_bytes:
            raise Hostile(f"a group with {size:,} bytes of names")
        return self.bytes_at(unsigned(head, 8 + 2 * self.lengths, self.offsets), size)

    def _heap_name(self, names: bytes, offset: int) -> str:
        end = names.find(b"\0", offset, offset + MAX_NAME)
        if end < 0 or offset > len(names):
            raise Damaged("a member without a name")
        return _checked_name(names[offset:end])

    def _link_messages(self, path: str, messages: list[Message], info: bytes | None) -> list[tuple[str, int]]:
        if info is not None:
            at = 2 + (8 if unsigned(info, 1, 1) & 1 else 0)
            if defined(unsigned(info, at, self.offsets), self.offsets) is not None:
                raise Unsupported("links in a fractal heap")
        found: list[tuple[str, int]] = []
        for kind, _, body, _ in messages:
            if kind == LINK:
                link = self._link(path, body)
                if link is not None:
                    found.append(link)
        return found

    def _link(self, path: str, body: bytes) -> tuple[str, int] | None:
        if unsigned(body, 0, 1) != 1:
            raise Unsupported("a link message of another version")
        flags = unsigned(body, 1, 1)
        at = 2
        kind = 0
        if flags & 8:
            kind = unsigned(body, at, 1)
            at += 1
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length = unsigned(body, at, width)
        at += width
        if length > MAX_NAME:
            raise Hostile("a link with a name of more than 4 KiB")
        name = _checked_name(body[at : at + length])
        if kind != 0:
            self._refuse_link(path, name, {1: "symbolic", 64: "external"}.get(kind, "user-defined"))
            return None
        return name, unsigned(body, at + length, self.offsets)

    def _refuse_link(self, path: str, name: str, kind: str) -> None:
        where = f"{path}/{name}" if path else name
        self._problem(
            ProblemKind.HOSTILE, f"{where} is a {kind} link: Keras writes none, and it was not followed", where
        )


def _checked_name(raw: bytes) -> str:
    name = raw.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode("utf-8")
    if "/" in name or name in (".", ".."):
        raise Hostile(f"a member is named {name[:40]!r}")
    return name
