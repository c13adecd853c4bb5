"""The object graph inside a TensorFlow checkpoint: which key is which variable of which object."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.protobuf import fields, message, number, text


@dataclass(slots=True)
class GraphNode:
    """One tracked object.

    Attributes:
        children: (name, node) pairs in order.
        keys: checkpoint keys of its values, each with the variable's full name.
        slots: (variable's node, slot's name, slot's node) of an optimizer.
    """

    children: list[tuple[str, int]] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)
    slots: list[tuple[int, str, int]] = field(default_factory=list)


def read_graph(data: bytes, limits: ReadLimits) -> list[GraphNode]:
    """The nodes of a `TrackableObjectGraph`; the first is the root.

    Raises:
        CheckpointError: damaged, or larger than allowed.
    """
    nodes: list[GraphNode] = []
    for tag, content in fields(data):
        if tag != 1:
            continue
        if len(nodes) >= limits.proto_nodes:
            raise CheckpointError(
                f"the object graph has more than {limits.proto_nodes:,} objects; see --limit proto_nodes"
            )
        node = GraphNode()
        for kind, part in fields(message(content)):
            if kind == 1:
                node.children.append(_child(message(part)))
            elif kind == 2:
                full, key = _attribute(message(part))
                node.keys.append((key, full))
            elif kind == 3:
                node.slots.append(_slot(message(part)))
        nodes.append(node)
    return nodes


def _child(data: memoryview) -> tuple[str, int]:
    name, node = "", 0
    for tag, value in fields(data):
        if tag == 1:
            node = number(value)
        elif tag == 2:
            name = text(value)
    return name, node


def _attribute(data: memoryview) -> tuple[str, str]:
    full = key = ""
    for tag, value in fields(data):
        if tag == 2:
            full = text(value)
        elif tag == 3:
            key = text(value)
    return full, key


def _slot(data: memoryview) -> tuple[int, str, int]:
    variable = slot = 0
    name = ""
    for tag, value in fields(data):
        if tag == 1:
            variable = number(value)
        elif tag == 2:
            name = text(value)
        elif tag == 3:
            slot = number(value)
    return variable, name, slot
