"""States of Keras' seed generators, which checkpoints do not hold: read, and put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_GLOBAL = "global_seed_generator"  # the attribute under which Keras keeps its shared generator


def seed_generators(model: Any) -> list[tuple[str | None, int, Any]]:
    """Every seed generator that a training step of `model` may draw from.

    Returns:
        (layer name, index within the layer, state variable), in the order of the model's layers; Keras' global
        generator last, with None as its layer, where it exists.
    """
    found: list[tuple[str | None, int, Any]] = []
    seen: set[int] = set()
    for layer in _layers(model):
        for index, generator in enumerate(getattr(layer, "_seed_generators", ())):
            if id(generator) not in seen:
                seen.add(id(generator))
                found.append((layer.name, index, generator.state))
    shared = _global_generator()
    if shared is not None and id(shared) not in seen:
        found.append((None, 0, shared.state))
    return found


def seed_entries(names: Sequence[tuple[str | None, int]], states: Sequence[Any]) -> list[dict[str, Any]]:
    """States as recorder.json holds them; `states` are (2,) integer arrays."""
    return [
        {"layer": layer, "index": index, "state": [int(n) for n in state]}
        for (layer, index), state in zip(names, states, strict=True)
    ]


def restore_seed_states(model: Any, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Put recorded states back into the generators of `model`, which may be a reloaded copy.

    Layer names decide; where a rebuilt model has other names, the order of the layers does, if the numbers agree.

    Args:
        model: a built Keras model.
        entries: `seed_generators` of recorder.json.

    Returns:
        One sentence for each state that found no place.
    """
    present = seed_generators(model)
    by_name = {(layer, index): state for layer, index, state in present if layer is not None}
    wanted = [e for e in entries if e["layer"] is not None]
    own = [state for layer, _, state in present if layer is not None]
    in_order = len(wanted) == len(own) and any((e["layer"], e["index"]) not in by_name for e in wanted)
    lost = []
    for position, entry in enumerate(wanted):
        state = own[position] if in_order else by_name.get((entry["layer"], entry["index"]))
        if state is None:
            lost.append(f"the model has no seed generator {entry['index']} in a layer '{entry['layer']}'")
        else:
            state.assign(entry["state"])
    for entry in entries:
        if entry["layer"] is None:
            _make_global_generator().state.assign(entry["state"])
    return lost


def _layers(model: Any) -> Iterator[Any]:
    yield from model._flatten_layers(include_self=True, recursive=True)  # noqa: SLF001 - Keras has no public walk


def _global_generator() -> Any | None:
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute(_GLOBAL)


def _make_global_generator() -> Any:
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator()
