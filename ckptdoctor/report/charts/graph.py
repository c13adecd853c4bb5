"""The model as its graph: one row a layer (or a run of like layers), edges in lanes beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptdoctor.model import Report
from ckptdoctor.report import numbers
from ckptdoctor.report.document.tensors import LayerView, layers_of, spec_of

MOST_ROWS = 60
_MOST_INNER = 40  # layers listed inside an opened group
_LARGE = 400  # layers from which groups are not opened: the page must stay small
_MOST_LANES = 8
_LANE = 14
ROW = 30


@dataclass(frozen=True, slots=True)
class Edge:
    """A piece of an edge inside one row: from lane to lane, over the upper half, the lower half or the whole row."""

    path: str
    tone: str  # spread, plain


@dataclass(frozen=True, slots=True)
class Row:
    """A layer, or a run of them, as drawn."""

    names: tuple[str, ...]
    title: str
    kind: str
    state: str  # origin, bad, healthy, bare
    words: str
    x: int
    edges: tuple[Edge, ...]
    tainted: bool  # without weights, but fed by layers that are not finite
    inner: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """All rows; `width` of the lanes in pixels."""

    rows: tuple[Row, ...]
    width: int
    known: bool
    summary: str
    total: int


@dataclass(frozen=True, slots=True)
class _Node:
    """A layer or a group before it has a place."""

    layers: tuple[LayerView, ...]
    inbound: tuple[int, ...]
    state: str


def model_graph(report: Report) -> Graph | None:
    """The graph of the report's model, None where no layer is known."""
    layers = layers_of(report)
    if not layers:
        return None
    origin = report.diagnosis.origin.layer
    spec = spec_of(report)
    known = spec is not None and spec.graph_known
    nodes = _grouped(layers, origin, known)
    rows, lanes = _laid_out(nodes, known)
    bad = [v.name for v in layers if v.nonfinite]
    summary = f"{numbers.count(len(layers), 'layer')}, {len(bad):,} with non-finite entries"
    if origin:
        summary += f"; it began at {origin}"
    return Graph(tuple(rows), lanes * _LANE + 8, known, summary + ".", len(layers))


def state_of(view: LayerView, origin: str | None) -> str:
    """`origin`, `bad`, `healthy`, or `bare` for layers without stored values."""
    if view.name == origin:
        return "origin"
    if view.nonfinite:
        return "bad"
    return "healthy" if view.tensors else "bare"


# --- grouping --------------------------------------------------------------------------------------------------------


def _grouped(layers: Sequence[LayerView], origin: str | None, known: bool) -> list[_Node]:
    """Layers as nodes; of more than `MOST_ROWS`, runs of like layers become one node each."""
    runs: list[list[LayerView]] = [[v] for v in layers]
    if len(layers) > MOST_ROWS:
        single = _worth_a_row(layers, origin)
        runs = _runs(layers, single)
        while len(runs) > MOST_ROWS:
            runs = _halved(runs)
    place: dict[str, int] = {view.name: n for n, run in enumerate(runs) for view in run}
    nodes = []
    for n, run in enumerate(runs):
        names = (name for view in run for name in (view.spec.inbound if view.spec and known else ()))
        inbound = tuple(dict.fromkeys(place[name] for name in names if place.get(name, n) < n))
        nodes.append(_Node(tuple(run), inbound, _group_state(run, origin)))
    return nodes


def _group_state(run: Sequence[LayerView], origin: str | None) -> str:
    states = [state_of(view, origin) for view in run]
    return next((s for s in ("origin", "bad", "healthy") if s in states), "bare")


def _worth_a_row(layers: Sequence[LayerView], origin: str | None) -> set[int]:
    """The ends, the origin and the first bad layer with their neighbours."""
    marked = [0, len(layers) - 1]
    marked += [n for n, view in enumerate(layers) if view.name == origin]
    marked += [n for n, view in enumerate(layers) if view.nonfinite][:1]
    return {n + d for n in marked for d in (-2, -1, 0, 1, 2)}


def _common(first: str, last: str) -> str:
    """`block/a … block/z` as `block/a … z`."""
    prefix = first.rpartition("/")[0]
    return f"{first} … {last[len(prefix) + 1 :]}" if prefix and last.startswith(prefix + "/") else f"{first} … {last}"


def _runs(layers: Sequence[LayerView], single: set[int]) -> list[list[LayerView]]:
    runs: list[list[LayerView]] = []
    last: object = None
    for n, view in enumerate(layers):
        key = (bool(view.nonfinite), view.name.rpartition("/")[0]) if n not in single else n
        if key == last:
            runs[-1].append(view)
        else:
            runs.append([view])
        last = key
    return runs


def _halved(runs: list[list[LayerView]]) -> list[list[LayerView]]:
    """Neighbouring runs of the same state joined in pairs."""
    joined: list[list[LayerView]] = []
    for run in runs:
        previous = joined[-1] if joined else None
        alike = previous is not None and _bad(previous) == _bad(run) and len(previous) <= 2 * len(run)
        if previous is not None and (alike or len(runs) > 4 * MOST_ROWS):
            previous += run
        else:
            joined.append(list(run))
    return joined if len(joined) < len(runs) else [[v for run in runs for v in run]]


def _bad(run: Iterable[LayerView]) -> bool:
    return any(view.nonfinite for view in run)


# --- lanes -------------------------------------------------------------------------------------------------------------


def _laid_out(nodes: Sequence[_Node], known: bool) -> tuple[list[Row], int]:
    """Rows with their edges, and the number of lanes that were used.

    A node's output stays in the node's lane until its last taker; that taker continues the lane.
    """
    last_taker = {m: n for n, node in enumerate(nodes) for m in node.inbound}
    spread = _spread(nodes)
    lanes: list[int | None] = []  # which node's output each lane carries
    lane_of: dict[int, int] = {}
    rows: list[Row] = []
    used = 1
    for n, node in enumerate(nodes):
        before = list(lanes)
        for m in node.inbound:
            if last_taker[m] == n and lane_of[m] < len(lanes):
                lanes[lane_of[m]] = None
        lane = _free_lane(lanes, [lane_of[m] for m in node.inbound if last_taker[m] == n])
        lane_of[n] = lane
        edges = _edges(n, nodes, before, lane_of, last_taker, spread) if known else ()
        lanes[lane] = n if n in last_taker else None
        used = max(used, min(len(lanes), _MOST_LANES))
        rows.append(_row(node, _x(lane), edges, tainted=n in spread))
    return rows, used


def _free_lane(lanes: list[int | None], preferred: Sequence[int]) -> int:
    candidates: list[int] = [*preferred, *range(len(lanes))]
    for lane in candidates:
        if lanes[lane] is None:
            return lane
    lanes.append(None)
    return len(lanes) - 1


def _x(lane: int) -> int:
    return min(lane, _MOST_LANES - 1) * _LANE + 11


def _edges(
    n: int,
    nodes: Sequence[_Node],
    before: Sequence[int | None],
    lane_of: dict[int, int],
    last_taker: dict[int, int],
    spread: set[int],
) -> tuple[Edge, ...]:
    half = ROW // 2
    here = _x(lane_of[n])
    edges: list[Edge] = []
    for lane, m in enumerate(before):
        if m is None:
            continue
        x = _x(lane)
        if m in nodes[n].inbound:
            tone = "spread" if m in spread and n in spread else "plain"
            path = f"M{x} 0V{half}" if x == here else f"M{x} 0C{x} {half - 3} {here} 2 {here} {half}"
            edges.append(Edge(path, tone))
        if last_taker[m] > n:
            tone = "spread" if m in spread and last_taker[m] in spread else "plain"
            edges.append(Edge(f"M{x} 0V{ROW}", tone))
    if n in last_taker:
        tone = "spread" if n in spread and any(t in spread for t in _takers(n, nodes)) else "plain"
        edges.append(Edge(f"M{here} {half}V{ROW}", tone))
    return tuple(edges)


def _takers(n: int, nodes: Sequence[_Node]) -> list[int]:
    return [t for t in range(n + 1, min(len(nodes), n + 200)) if n in nodes[t].inbound]


def _spread(nodes: Sequence[_Node]) -> set[int]:
    """Nodes with non-finite values, and those without weights of their own that pass them on."""
    spread: set[int] = set()
    for n, node in enumerate(nodes):
        if _bad(node.layers) or (node.state == "bare" and any(m in spread for m in node.inbound)):
            spread.add(n)
    return spread


def _row(node: _Node, x: int, edges: tuple[Edge, ...], *, tainted: bool) -> Row:
    views = node.layers
    nonfinite, size = sum(v.nonfinite for v in views), sum(v.size for v in views)
    words = "finite" if size else "no weights"
    if nonfinite:
        words = "all non-finite" if nonfinite == size else f"{nonfinite:,} of {size:,} non-finite"
    if len(views) == 1:
        spec = views[0].spec
        kind = spec.class_name if spec else ""
        if spec and spec.activation and spec.activation != "linear":
            kind += f", {spec.activation}"
        return Row((views[0].name,), views[0].name, kind, node.state, words, x, edges, tainted)
    classes = sorted({v.spec.class_name for v in views if v.spec})
    kind = ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
    inner = tuple(v.name for v in views) if len(views) <= _MOST_INNER else ()
    title = f"{numbers.count(len(views), 'layer')}: {_common(views[0].name, views[-1].name)}"
    return Row(tuple(v.name for v in views), title, kind, node.state, words, x, edges, tainted, inner)
