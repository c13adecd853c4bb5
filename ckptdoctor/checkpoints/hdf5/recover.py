"""Objects of a damaged HDF5 file that nothing leads to any more: found by searching for their headers.

When the end of a file is missing, the lists that name a group's members are often among what was lost, while the members
themselves stand before the cut. Headers are searched for in what no known tensor occupies; a header counts only where every
message in it makes sense and its bytes are inside the file. Keras saves in order, so a nameless tensor belongs to the group
that was begun last before it, with the next number.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ckptdoctor.checkpoints.hdf5.tree import H5Dataset, H5Error, H5Group

if TYPE_CHECKING:
    from ckptdoctor.checkpoints.hdf5.reader import Reader

PREFIX = "recovered_"  # of the parts of a path that stand for a lost name
_HEADER = re.compile(rb"\x01\x00[\x01-\x40]\x00\x01\x00\x00\x00", re.DOTALL)  # version 1, few messages, one link to it
_SCAN_STEP = 1 << 20
_SCAN_LIMIT = 4 << 30  # bytes searched; metadata of larger files lies among gigabytes of weights
_FOUND_LIMIT = 50_000


@dataclass(slots=True)
class _Orphan:
    """A header that nothing leads to."""

    address: int
    dataset: H5Dataset | None
    group: H5Group | None
    links: list[tuple[str, int]] = field(default_factory=list)


def recover(reader: Reader) -> int:
    """Add what can be found to the reader's tree; returns how many tensors that were."""
    orphans = {o.address: o for o in _search(reader)}
    if not orphans:
        return 0
    parents = {child: (o.address, name) for o in orphans.values() for name, child in o.links if child in orphans}
    before = len(reader.tree.datasets)
    paths: dict[int, str] = {}
    for address in sorted(orphans):
        orphan = orphans[address]
        if orphan.group is not None:
            path = _path(orphan, orphans, parents, paths)
            reader.tree.groups[path] = replace(orphan.group, path=path)
    nameless: list[H5Dataset] = []
    for address in sorted(orphans):
        dataset = orphans[address].dataset
        if dataset is None:
            continue
        parent = parents.get(address)
        if parent is None:
            nameless.append(dataset)
            continue
        reader.tree.datasets.append(
            replace(dataset, path=f"{_path(orphans[parent[0]], orphans, parents, paths)}/{parent[1]}")
        )
    _number(reader, nameless)
    return len(reader.tree.datasets) - before


def _search(reader: Reader) -> list[_Orphan]:
    """Headers in what is not known yet."""
    found: list[_Orphan] = []
    for start, end in _gaps(reader):
        at = start
        while at < end and len(found) < _FOUND_LIMIT:
            length = min(_SCAN_STEP + 16, end - at)
            data = reader.window.read(at, length)
            for hit in _HEADER.finditer(data):
                offset = at + hit.start()
                address = offset - reader.base
                if address in reader.seen:
                    continue
                orphan = _orphan(reader, address)
                if orphan is not None:
                    reader.seen[address] = ""
                    found.append(orphan)
            at += _SCAN_STEP
    return found


def _gaps(reader: Reader) -> list[tuple[int, int]]:
    """Stretches of the window that no located tensor occupies."""
    occupied = sorted(
        (d.offset, d.offset + d.nbytes) for d in reader.tree.datasets if d.offset is not None and d.nbytes > 64
    )
    gaps: list[tuple[int, int]] = []
    at = reader.base
    total = 0
    for start, end in [*occupied, (reader.window.size, reader.window.size)]:
        if start > at:
            gaps.append((at, min(start, at + _SCAN_LIMIT - total)))
            total += gaps[-1][1] - at
        at = max(at, end)
        if total >= _SCAN_LIMIT:
            break
    return gaps


def _orphan(reader: Reader, address: int) -> _Orphan | None:
    try:
        item = reader.parse(address)
    except H5Error:
        return None
    if isinstance(item, H5Dataset):
        located = item.offset is not None and item.problem is None and item.numeric and item.storage == "contiguous"
        return _Orphan(address, item, None) if located else None
    group, links = item
    return _Orphan(address, None, group, links)


def _path(
    orphan: _Orphan, orphans: dict[int, _Orphan], parents: dict[int, tuple[int, str]], paths: dict[int, str]
) -> str:
    """The path of a found group: below its parent where that was found, else as a layer of the model."""
    trail: list[_Orphan] = []
    current = orphan
    while current.address not in paths:
        trail.append(current)
        parent = parents.get(current.address)
        if parent is None or len(trail) > 64 or any(orphans[parent[0]] is t for t in trail):
            break
        current = orphans[parent[0]]
    for item in reversed(trail):
        parent = parents.get(item.address)
        if parent is not None and parent[0] in paths:
            paths[item.address] = f"{paths[parent[0]]}/{parent[1]}"
        else:
            assert item.group is not None
            suffix = "/vars" if "name" in item.group.attributes else ""
            paths[item.address] = f"layers/{PREFIX}{item.address}{suffix}"
    return paths[orphan.address]


def _number(reader: Reader, nameless: list[H5Dataset]) -> None:
    """Give tensors without a name the next number in the group that was begun last before them."""
    groups = sorted(
        (g.address, path) for path, g in reader.tree.groups.items() if path == "vars" or path.endswith("/vars")
    )
    starts = [address for address, _ in groups]
    taken: dict[str, dict[int, int]] = {}
    for dataset in reader.tree.datasets:
        group, _, name = dataset.path.rpartition("/")
        if name.isdigit() and len(name) < 10:
            taken.setdefault(group, {})[int(name)] = dataset.address
    for dataset in sorted(nameless, key=lambda d: d.address):
        index = bisect_right(starts, dataset.address) - 1
        group = groups[index][1] if index >= 0 else ""
        held = taken.setdefault(group, {})
        number = _next_number(held, dataset.address)
        name = f"{PREFIX}{dataset.address}" if number is None else str(number)
        if number is not None:
            held[number] = dataset.address
        reader.tree.datasets.append(replace(dataset, path=f"{group}/{name}" if group else name))


def _next_number(held: dict[int, int], address: int) -> int | None:
    """One more than the highest number saved before; None where that number stands elsewhere or order is broken."""
    before = [n for n, a in held.items() if a < address]
    number = max(before, default=-1) + 1
    if number in held or len(before) != number:
        return None
    return number
