"""Copies of a run that differ in nothing that matters: other file names, folder names, layer names."""

from __future__ import annotations

import json
import random
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jade",
    "kelp",
    "larch",
    "mossy",
    "north",
)


def rename_files(run: Path, seed: int = 0) -> Path:
    """Rename the run's folder, its checkpoints (their numbers stay) and its CSV log, in place.

    Returns:
        The new folder.
    """
    rng = random.Random(seed)
    word = rng.choice(WORDS)
    checkpoints = run / "checkpoints"
    for path in sorted(checkpoints.iterdir()):
        number, suffix = path.name.split(".", 1)
        path.rename(checkpoints / f"{word}-{int(number.rsplit('_', 1)[-1]):05d}.{suffix}")
    checkpoints.rename(run / f"{rng.choice(WORDS)}_models")
    for path in run.glob("*.csv"):
        path.rename(run / f"{rng.choice(WORDS)}.csv")
    return run.rename(run.with_name(f"{rng.choice(WORDS)}{rng.randrange(1000)}"))


def rename_layers(run: Path, seed: int = 0) -> dict[str, str]:
    """Give every layer but the inputs another name, in each `.keras` archive of the run, in place.

    Works on archives of Keras 3.6 and later, where a layer's name stands in the configuration and as attribute `name` of
    its `vars` group.

    Returns:
        Old names to new ones; empty where the run has no such archives.
    """
    archives = sorted((run / "checkpoints").glob("*.keras"))
    if not archives:
        return {}
    with zipfile.ZipFile(archives[0]) as archive:
        config = json.loads(archive.read("config.json"))
    names = sorted(set(_layer_names(config)))
    rng = random.Random(seed)
    mapping = {name: f"{rng.choice(WORDS)}_{i}" for i, name in enumerate(names)}
    for path in archives:
        _rewrite(path, mapping)
    return mapping


def _layers(node: Any) -> list[dict[str, Any]]:
    """Serialised layers anywhere in a configuration, nested models included, the outermost model excluded."""
    found = []
    if isinstance(node, dict):
        for layer in node.get("layers", ()) if isinstance(node.get("layers"), list) else ():
            if isinstance(layer, dict) and "class_name" in layer:
                found += [layer, *_layers(layer.get("config"))]
    return found


def _layer_names(config: dict[str, Any]) -> list[str]:
    return [
        layer["config"]["name"]
        for layer in _layers(config["config"])
        if layer["class_name"] != "InputLayer" and "name" in layer["config"]
    ]


def renamed_config(config: dict[str, Any], mapping: dict[str, str]) -> dict[str, Any]:
    """A model's configuration with its layers renamed, in definitions and in references."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            if len(node) == 3 and isinstance(node[0], str) and all(isinstance(n, int) for n in node[1:]):
                return [mapping.get(node[0], node[0]), *node[1:]]  # keras_history, input_layers, output_layers
            return [walk(item) for item in node]
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        return node

    result = walk(config)
    for layer in _layers(result["config"]):
        for holder in (layer, layer["config"]):
            if layer["class_name"] != "InputLayer" and isinstance(holder.get("name"), str):
                holder["name"] = mapping.get(holder["name"], holder["name"])
    return dict(result)


def _rewrite(path: Path, mapping: dict[str, str]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members["config.json"] = json.dumps(renamed_config(json.loads(members["config.json"]), mapping)).encode()
    with tempfile.NamedTemporaryFile(suffix=".h5") as weights:
        weights.write(members["model.weights.h5"])
        weights.flush()
        with h5py.File(weights.name, "r+") as file:
            _rename_groups(file, mapping)
        members["model.weights.h5"] = Path(weights.name).read_bytes()
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    partial.replace(path)


def _rename_groups(group: h5py.Group, mapping: dict[str, str]) -> None:
    name = group.attrs.get("name")
    if isinstance(name, str) and name in mapping:
        group.attrs["name"] = mapping[name]
    for child in group.values():
        if isinstance(child, h5py.Group):
            _rename_groups(child, mapping)


def file_change(seed: int) -> Callable[[Path], Path]:
    """`rename_files` as a change for `running.ask`."""
    return lambda run: rename_files(run, seed)
