"""What a configuration would run if it were rebuilt: a walk over all of it against a list of Keras' own names.

Standard library only, nothing is imported or executed. Rules use it to report; replay uses it to refuse.
The walk looks at every object in the document, wherever it stands (nested models, wrappers, `compile_config`,
arguments of a call), because known evasions hide a Lambda in a `TimeDistributed` or in `compile_config.loss`.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptdoctor.replay.keras_names import CLASSES, FUNCTIONS

MAX_DEPTH = 200  # nesting of the walk; Keras' own largest models stay below 40
MAX_PROBLEMS = 256  # of one kind: a flood of harmless ones must not hide one of another kind behind it
MAX_EXTENT = 1 << 31  # one dimension of a layer; a larger one is a shape bomb (CVE-2026-0897)
MAX_ENTRIES = 1 << 40  # entries of one weight, as far as the configuration settles them: 4 TB as float32

REMOVABLE = ("_constraint", "_regularizer", "_initializer")

_KERAS_MODULE = re.compile(r"^(tf_keras|keras|tensorflow\.keras|tensorflow\.python\.keras)(\.[A-Za-z0-9_.]+)?$")
_PLAIN_CLASSES = frozenset(
    [
        "__keras_tensor__",
        "__tensor__",
        "__numpy__",
        "__bytes__",
        "__ellipsis__",
        "__tuple__",
        "__slice__",
        "TensorShape",
        "slice",
        "dict",
        "list",
    ]
)
_RUNS_CODE: Mapping[str, tuple[str, str]] = {
    "Lambda": ("a Lambda layer runs code stored in the file", "CVE-2024-3660, CVE-2025-9905"),
    "__lambda__": ("a Python lambda stored as bytecode", "CVE-2024-3660"),
    "TFSMLayer": ("TFSMLayer loads and runs an outside SavedModel", "CVE-2026-1462"),
    "TorchModuleWrapper": ("TorchModuleWrapper unpickles its contents", "CVE-2025-49655"),
    "JaxLayer": ("JaxLayer runs a function given by name", "CVE-2025-1550"),
    "FlaxLayer": ("FlaxLayer runs a module given by name", "CVE-2025-1550"),
}
_RUNS_CODE_NAMES = frozenset({"get_file", "eval", "exec", "system", "popen", "load_model", "load_op_library", "open"})
_SWITCH = "enable_unsafe_deserialization"
_UNSAFE_KEYS = frozenset({"enable_unsafe_deserialization", "safe_mode", "allow_pickle"})
_FILE_KEYS = frozenset({"vocabulary", "idf_weights", "filepath", "url", "origin", "file_path"})
_EXTENT_KEYS = frozenset({"units", "filters", "input_dim", "output_dim", "embedding_dim", "num_tokens", "key_dim"})
_SAFE_TF_OPS = re.compile(
    r"^(math\.|nn\.|linalg\.|signal\.|image\.|strings\.|__operators__\.|compat\.v1\.(transpose|shape|squeeze|gather)$|"
    r"(concat|reshape|cast|stack|unstack|split|squeeze|expand_dims|transpose|tile|zeros_like|ones_like|where|clip_by_value|"
    r"identity|shape|gather|pad|reverse|one_hot|convert_to_tensor|stop_gradient|boolean_mask|broadcast_to|slice)$)"
)


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """Something in a configuration that is not Keras' own.

    Attributes:
        reason: a clause for people, without a full stop.
        address: where in the document, like `model.layers[3].config.layer`.
        kind: `runs_code`, `foreign_module`, `custom`, `unsafe_switch`, `outside_file`, `traversal`, `bomb`, `depth`.
        subject: the class, function, key or path in question, at most 200 characters.
        advisory: number of a published advisory about that way, or empty.
    """

    reason: str
    address: str
    kind: str
    subject: str
    advisory: str = ""

    @property
    def custom(self) -> bool:
        """Only unknown, not dangerous by itself: the user's own class or function, which can be brought along."""
        return self.kind == "custom"

    @property
    def removable(self) -> bool:
        """A constraint, regularizer or initializer: a forward pass does not need it."""
        return self.address.endswith(REMOVABLE)


def config_problems(config: Any, *, root: str = "model") -> tuple[ConfigProblem, ...]:
    """Everything in a model configuration that stands in the way of rebuilding it without running foreign code.

    Args:
        config: as parsed from JSON; any value is accepted.
        root: name of the document in the addresses.

    Returns:
        at most `MAX_PROBLEMS` of each kind, in document order; empty for a configuration made of Keras' own parts.
    """
    found: list[ConfigProblem] = []
    count: Counter[str] = Counter()
    for problem in _walk(config, root, 0):
        count[problem.kind] += 1
        if count[problem.kind] <= MAX_PROBLEMS:
            found.append(problem)
    return tuple(found)


def compile_problems(config: Any, *, root: str = "compile_config") -> tuple[ConfigProblem, ...]:
    """The same for `compile_config` or `training_config`; a custom loss or metric is `custom`, a lambda `runs_code`."""
    return config_problems(config, root=root)


def _walk(node: Any, address: str, depth: int) -> Iterator[ConfigProblem]:
    if depth > MAX_DEPTH:
        yield ConfigProblem(f"nested deeper than {MAX_DEPTH} levels", address[:200], "depth", "")
        return
    if isinstance(node, Mapping):
        yield from _check_object(node, address)
        yield from _check_weight(node, address)
        for key, value in node.items():
            yield from _check_entry(str(key), value, address)
            yield from _walk(value, f"{address}.{str(key)[:60]}", depth + 1)
    elif isinstance(node, Sequence) and not isinstance(node, (str, bytes)):
        for n, value in enumerate(node):
            yield from _walk(value, f"{address}[{n}]", depth + 1)


def _check_object(node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """A serialised object: `class_name` with `module`, `registered_name`, `config`."""
    name = node.get("class_name")
    if name is None:
        return
    if not isinstance(name, str):
        yield ConfigProblem("a class name that is not a string", address, "foreign_module", _short(name))
        return
    module = node.get("module")
    if name in _RUNS_CODE:
        reason, advisory = _RUNS_CODE[name]
        if name == "Lambda" and _revived_by_itself(node):
            advisory += ", CVE-2026-12481"
        yield ConfigProblem(reason, address, "runs_code", name, advisory)
        return
    if name == _SWITCH:
        yield ConfigProblem(
            "loading would call Keras' switch for unsafe files", address, "unsafe_switch", name, "CVE-2025-9906"
        )
        return
    if name == "function":
        yield from _check_function(node, address)
        return
    if name in ("TFOpLambda", "SlicingOpLambda"):
        yield from _check_tf_op(node, address)
        return
    if name == "__typespec__":
        yield from _check_typespec(node, address)
        return
    if name in _PLAIN_CLASSES:
        return
    if module is None:
        yield from _check_legacy(name, node, address)
        return
    if isinstance(module, str) and _KERAS_MODULE.match(module):
        registered = node.get("registered_name")
        if name in CLASSES and isinstance(registered, str) and registered.rpartition(">")[2] not in (name, ""):
            yield ConfigProblem(
                f"'{_short(name)}' stands for a class registered as '{_short(registered)}', which a loader takes instead",
                address,
                "custom",
                _short(registered),
            )
        if name not in CLASSES:
            # Keras names classes in capitals; another name is a function, or a path, that would be called while loading.
            foreign = name in _RUNS_CODE_NAMES or not (
                (name[:1].isupper() and name.isidentifier()) or name in FUNCTIONS
            )
            yield ConfigProblem(
                f"'{_short(name)}' from {_short(module)} is not a class this version knows as Keras' own",
                address,
                "foreign_module" if foreign else "custom",
                _short(name),
                _advisories(name, node) if foreign else "",
            )
        return
    if module in ("builtins", "") and name in CLASSES:
        return
    # Keras looks for a registered name first, and imports the module where it finds none: the name excuses nothing.
    custom = _looks_like_user_code(module)
    yield ConfigProblem(
        f"'{_short(name)}' comes from the module '{_short(module)}', which is not Keras'",
        address,
        "custom" if custom else "foreign_module",
        f"{_short(module)}.{_short(name)}",
        "" if custom else "CVE-2025-1550",
    )


def _revived_by_itself(layer: Mapping[str, Any]) -> bool:
    """A Lambda in the older form, whose code its own `from_config` revives."""
    config = layer.get("config")
    return isinstance(config, Mapping) and ("function_type" in config or isinstance(config.get("function"), list))


def _advisories(function: str, call: Mapping[str, Any]) -> str:
    """What was published about calling this function from a configuration."""
    if function != "get_file":
        return "CVE-2025-1550"
    return "CVE-2025-8747" + (", CVE-2025-12060, CVE-2025-12638" if _unpacks(call) else "")


def _unpacks(call: Mapping[str, Any]) -> bool:
    """Whether a download asks for its archive to be unpacked: by argument, or by a keyword of the call."""
    config, nodes = call.get("config"), call.get("inbound_nodes")
    places: list[Any] = [config]
    places += [n.get("kwargs") for n in nodes if isinstance(n, Mapping)] if isinstance(nodes, list) else []
    return any(isinstance(p, Mapping) and (p.get("extract") or p.get("untar")) for p in places)


_SYSTEM_MODULES = sys.stdlib_module_names | {
    "asyncore",  # the first seven were in the standard library of older Pythons
    "distutils",
    "imp",
    "lib2to3",
    "pipes",
    "smtpd",
    "telnetlib",
    "cloudpickle",
    "dill",
    "jax",
    "joblib",
    "numpy",
    "pip",
    "pkg_resources",
    "requests",
    "scipy",
    "setuptools",
    "tensorflow",
    "torch",
}


def _looks_like_user_code(module: Any) -> bool:
    """A module that can only be the run's own: neither the standard library nor a package with dangerous functions."""
    return isinstance(module, str) and module.partition(".")[0] not in _SYSTEM_MODULES


def _check_legacy(name: str, node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """Keras 2 and legacy HDF5 documents name classes without a module; custom ones as `package>Name`."""
    plain = name.partition(">")[2] if name.startswith("Custom>") else name
    if plain in CLASSES or name in FUNCTIONS or name == "TensorShape":
        return
    if name in _RUNS_CODE_NAMES:
        advisory = _advisories(name, node)
        yield ConfigProblem(f"'{name}' runs or loads outside code", address, "foreign_module", name, advisory)
        return
    yield ConfigProblem(f"'{_short(name)}' is not a class of Keras", address, "custom", _short(name))


def _check_typespec(node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """A TensorFlow type: Keras looks its class up by `spec_name` and `module`, like any other class."""
    name, module = node.get("spec_name"), node.get("module")
    ours = isinstance(module, str) and module.partition(".")[0] == "tensorflow"
    if not (ours and isinstance(name, str) and name.endswith("Spec") and name.isidentifier()):
        label = f"{_short(module)}.{_short(name)}"
        yield ConfigProblem(
            f"'{label}' as the type of a tensor, which is not TensorFlow's",
            address,
            "foreign_module",
            label,
            "CVE-2025-1550",
        )


def _check_weight(node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """A layer whose extents are each possible, and whose weight is not."""
    config, built = node.get("config"), node.get("build_config")
    if not isinstance(config, Mapping):
        return
    shape = built.get("input_shape") if isinstance(built, Mapping) else None
    last = shape[-1:] if isinstance(shape, list) and "input_dim" not in config else []  # of an Embedding: a length
    extents = [*last, *(config.get(k) for k in ("units", "filters", "input_dim", "output_dim"))]
    kernel = config.get("kernel_size")
    extents += kernel if isinstance(kernel, list) else []
    sizes = [min(abs(e), MAX_EXTENT) for e in extents if isinstance(e, int) and not isinstance(e, bool) and e]
    if math.prod(sizes[:16]) > MAX_ENTRIES:
        yield ConfigProblem(
            "a weight of more entries than any machine holds", address, "bomb", "shape", "CVE-2026-0897"
        )


def _check_function(node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """A function by name: `{"class_name": "function", "config": "relu", "module": "builtins"}`."""
    target, module = node.get("config"), node.get("module")
    label = _short(target)
    if target == _SWITCH:
        yield ConfigProblem(
            "loading would call Keras' switch for unsafe files", address, "unsafe_switch", label, "CVE-2025-9906"
        )
        return
    if isinstance(module, str) and module not in ("builtins", "") and not _KERAS_MODULE.match(module):
        kind = "custom" if _looks_like_user_code(module) else "foreign_module"
        advisory = "" if kind == "custom" else "CVE-2025-1550"
        yield ConfigProblem(f"the function '{label}' of the module '{_short(module)}'", address, kind, label, advisory)
    elif isinstance(target, str) and target in FUNCTIONS:
        return
    elif isinstance(target, str) and target in _RUNS_CODE_NAMES:
        yield ConfigProblem(
            f"the function '{label}' runs or loads outside code",
            address,
            "foreign_module",
            label,
            _advisories(target, node),
        )
    elif isinstance(module, str) and _KERAS_MODULE.match(module):
        yield ConfigProblem(
            f"the function '{label}' of {module} is not one a model needs",
            address,
            "foreign_module",
            label,
            "CVE-2025-1550",
        )
    else:
        yield ConfigProblem(f"the function '{label}', which is not Keras'", address, "custom", label)


def _check_tf_op(node: Mapping[str, Any], address: str) -> Iterator[ConfigProblem]:
    """Keras 2 stored bare TensorFlow calls as `TFOpLambda` with the symbol's name."""
    config = node.get("config")
    symbol = config.get("function", "") if isinstance(config, Mapping) else ""
    if node.get("class_name") == "SlicingOpLambda" and not symbol:
        return
    if not (isinstance(symbol, str) and _SAFE_TF_OPS.match(symbol)):
        yield ConfigProblem(f"TensorFlow's '{_short(symbol)}' called by name", address, "runs_code", _short(symbol))


def _check_entry(key: str, value: Any, address: str) -> Iterator[ConfigProblem]:
    """One key of an object: switches, outside files, traversal, extents, activations given as strings."""
    where = f"{address}.{key[:60]}"
    if key in _UNSAFE_KEYS and value not in (True, None) and key == "safe_mode":
        yield ConfigProblem("safe mode is switched off in the document", where, "unsafe_switch", key, "CVE-2025-9906")
    elif key in _UNSAFE_KEYS and value and key != "safe_mode":
        yield ConfigProblem(f"the document sets {key}", where, "unsafe_switch", key, "CVE-2025-9906")
    elif key in _FILE_KEYS and isinstance(value, str) and value:
        yield ConfigProblem(
            f"{key} names an outside file or address", where, "outside_file", _short(value), "CVE-2025-12058"
        )
    elif key == "name" and isinstance(value, str) and _climbs(value):
        yield ConfigProblem("a name that climbs out of its folder", where, "traversal", _short(value), "CVE-2026-12479")
    elif (key in _EXTENT_KEYS or key.endswith(("shape", "_size"))) and (largest := _largest(value)) > MAX_EXTENT:
        shown = f"{largest:.3g}" if largest < 1 << 64 else "more than 2 to the 64th"
        yield ConfigProblem(f"{key} of {shown}", where, "bomb", key, "CVE-2026-0897")
    elif key.endswith("activation") and isinstance(value, str) and value not in FUNCTIONS:
        yield ConfigProblem(f"the activation '{_short(value)}', which is not Keras'", where, "custom", _short(value))


def _climbs(name: str) -> bool:
    """Whether a name used as a file's leaves its folder, on any system."""
    plain = name.replace("\\", "/")
    return ".." in plain.split("/") or plain.startswith("/") or (plain[1:3] == ":/" and plain[:1].isalpha())


def _largest(value: Any) -> int:
    """The largest whole number of an extent or a shape, by its absolute value."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return max((abs(int(i)) for i in items if isinstance(i, (int, float)) and _is_whole(i)), default=0)


def _is_whole(value: float) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
