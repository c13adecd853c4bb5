"""An HDF5 file as raw tensors: the own reader first, the contained child for what only the library knows."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdoctor.checkpoints.contract import CheckpointError, Span
from ckptdoctor.checkpoints.hdf5 import H5Dataset, H5Tree, Unsupported, read_tree
from ckptdoctor.checkpoints.hdf5.tree import H5Error
from ckptdoctor.checkpoints.keras3 import Chunks, RawTensor, known_dtype_problem, span_chunks, unreadable
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window
from ckptdoctor.model import Problem, ProblemKind


@dataclass(slots=True)
class H5Content:
    """What an HDF5 file holds. `missing_bytes` are of tensors that are named but whose bytes are not there."""

    tree: H5Tree
    tensors: list[RawTensor]
    names: dict[str, str]
    order: dict[str, int]
    problems: list[Problem]
    located_bytes: int = 0
    missing_bytes: int = 0


def open_hdf5(window: Window, where: str, limits: ReadLimits) -> H5Content:
    """Everything in an HDF5 file that can be located.

    Args:
        window: the file. where: its name for messages.

    Raises:
        CheckpointError: not HDF5, or damaged beyond its first bytes.
    """
    try:
        tree = read_tree(window, limits)
    except Unsupported as error:
        raise CheckpointError(f"{where} uses a part of HDF5 that cannot be read: {error}") from None
    except H5Error as error:
        raise CheckpointError(f"{where} cannot be read as HDF5: {error}") from None
    content = H5Content(tree, [], {}, {}, list(tree.problems))
    if tree.declared_bytes > window.size:
        content.problems.insert(
            0,
            Problem(
                ProblemKind.DAMAGED,
                f"the weights file should have {tree.declared_bytes:,} bytes but has {window.size:,}: saving was cut off",
            ),
        )
    for group in tree.groups.values():
        path = group.path
        if path == "vars" or path.endswith("/vars"):
            owner = path[:-5]
            name = group.attributes.get("name")
            if isinstance(name, str) and name:
                content.names[owner] = name
            content.order[owner] = group.address
    for dataset in tree.datasets:
        raw = _raw(dataset, window)
        content.tensors.append(raw)
        if raw.problem is None:
            content.located_bytes += raw.nbytes
        elif dataset.numeric:
            content.missing_bytes += raw.nbytes
            if raw.problem not in (p.message for p in content.problems):
                content.problems.append(Problem(ProblemKind.UNSUPPORTED, raw.problem, raw.path))
    return content


def _raw(dataset: H5Dataset, window: Window) -> RawTensor:
    problem = dataset.problem or known_dtype_problem(dataset.path, dataset.dtype)
    span: Span | None = None
    chunks: Chunks
    if problem is None and dataset.storage == "chunked":
        problem = f"{dataset.path} is stored in chunks, which Keras does not write"
    if problem is None and dataset.offset is not None:
        span = Span(window.source, window.offset + dataset.offset, dataset.nbytes)
        chunks = span_chunks(span)
    else:
        chunks = unreadable(problem or f"{dataset.path} has no bytes")
    return RawTensor(dataset.path, dataset.address, dataset.shape, dataset.dtype, dataset.nbytes, span, chunks, problem)
