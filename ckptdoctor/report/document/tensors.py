"""The document's declaration, part 1: the subject, its layers and tensors, the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckptdoctor.model import (
    Census,
    CheckpointInfo,
    Format,
    LayerSpec,
    Missing,
    ModelSpec,
    OptimizerState,
    ProblemKind,
    Report,
    Role,
    TensorStats,
)
from ckptdoctor.report.document.kinds import (
    FLAG,
    INTEGER,
    REAL,
    TEXT,
    Choice,
    Field,
    Kind,
    List,
    Optional,
    Record,
    Table,
    plain,
)


def census_of(report: Report) -> Census | None:
    """The census that the verdict is about."""
    census = report.evidence.census
    return None if isinstance(census, Missing) else census


def spec_of(report: Report) -> ModelSpec | None:
    """The model's configuration."""
    spec = report.evidence.spec
    return None if isinstance(spec, Missing) else spec


# --- subject -----------------------------------------------------------------------------------------

PROBLEM = Record(
    "problem",
    "Something wrong with the file as a file.",
    (
        plain("kind", Choice.of(ProblemKind), "what kind of problem"),
        plain("message", TEXT, "one sentence"),
        plain("where", Optional(TEXT), "address inside the file"),
    ),
)


def _kind(report: Report) -> str:
    files = report.evidence.files
    return "run" if len(files.checkpoints) + len(files.logs) + len(files.batches) > 1 else "checkpoint"


def _info(report: Report) -> CheckpointInfo | Missing:
    census = report.evidence.census
    return census if isinstance(census, Missing) else census.info


def _from_info(name: str) -> Field:
    docs = {
        "format": "the container, found by content",
        "size_bytes": "bytes of all its files",
        "keras_version": "Keras that saved it",
        "saved_at": "when, as the file says",
        "backend": "the Keras backend, where recorded",
        "coverage": "share of the tensor bytes that could be located; below 1 only for damaged files",
    }
    kinds: dict[str, Kind] = {"format": Choice.of(Format), "size_bytes": INTEGER, "coverage": REAL}

    def get(report: Report) -> object:
        info = _info(report)
        return info if isinstance(info, Missing) else getattr(info, name)

    return Field(name, Optional(kinds.get(name, TEXT)), docs[name], get)


def parameters(report: Report) -> int | None:
    """Number of entries in weights and statistics, as `model.count_params()` counts them."""
    census = census_of(report)
    return None if census is None else sum(t.info.size for t in census.of_role(Role.WEIGHT, Role.STATISTIC))


SUBJECT = Record(
    "subject",
    "What was inspected. The facts about a file are those of the checkpoint that the verdict is about.",
    (
        Field("path", TEXT, "as it was given", lambda r: r.evidence.files.path),
        Field("kind", Choice(("checkpoint", "run")), "a single checkpoint, or a run of several files", _kind),
        Field(
            "checkpoint",
            Optional(TEXT),
            "the checkpoint that the verdict is about",
            lambda r: i if isinstance(i := _info(r), Missing) else i.path,
        ),
        _from_info("format"),
        _from_info("size_bytes"),
        _from_info("keras_version"),
        _from_info("saved_at"),
        _from_info("backend"),
        _from_info("coverage"),
        Field("layers", Optional(INTEGER), "number of layers", lambda r: len(layers_of(r)) or None),
        Field("parameters", Optional(INTEGER), "entries in weights and statistics", parameters),
        Field(
            "problems",
            List(PROBLEM),
            "what is wrong with the file as a file",
            lambda r: () if isinstance(i := _info(r), Missing) else i.problems,
        ),
    ),
)

# --- layers and variables --------------------------------------------------------------------------------


def _info_field(name: str, kind: Kind, doc: str) -> Field:
    return Field(name, kind, doc, lambda t: getattr(t.info, name))


_STATS = (
    _info_field("path", TEXT, "address inside the container"),
    _info_field("shape", List(INTEGER), "as declared"),
    _info_field("dtype", TEXT, "as stored"),
    Field("size", INTEGER, "number of entries", lambda t: t.info.size),
    plain("nan", INTEGER, "entries that are NaN"),
    plain("posinf", INTEGER, "entries that are +Infinity"),
    plain("neginf", INTEGER, "entries that are -Infinity"),
    plain("zeros", INTEGER, "entries that are exactly 0"),
    plain("min", Optional(REAL), "smallest finite entry"),
    plain("max", Optional(REAL), "largest finite entry"),
    plain("mean", Optional(REAL), "mean of the finite entries"),
    plain("rms", Optional(REAL), "root mean square of the finite entries"),
    plain("sampled", FLAG, "true where not every entry was read; the counts are then those of the sample"),
    plain("error", Optional(TEXT), "why it could not be read; the counts then mean nothing"),
)

VARIABLE = Record(
    "variable",
    "One stored tensor of a layer, measured.",
    (
        Field("name", TEXT, "kernel, bias, gamma, …", lambda t: t.info.variable),
        Field("role", Choice.of(Role), "what it is for", lambda t: t.info.role),
        *_STATS,
    ),
)

SLOT = Record(
    "slot",
    "One of the optimizer's tensors, measured.",
    (
        Field("name", TEXT, "the variable it belongs to, or its own name", lambda t: t.info.label),
        _info_field("slot", Optional(TEXT), "momentum, velocity, accumulator, …"),
        _info_field("slot_of", Optional(TEXT), "path of the weight it belongs to"),
        *_STATS,
    ),
)


@dataclass(frozen=True, slots=True)
class LayerView:
    """A layer with its stored tensors and its configuration, either of which may be absent."""

    name: str
    path: str | None
    spec: LayerSpec | None
    tensors: tuple[TensorStats, ...]

    @property
    def trainable(self) -> bool | None:
        """Whether a gradient may change it, where that is known."""
        if self.spec is not None:
            return self.spec.trainable
        said = [t.info.trainable for t in self.tensors if t.info.trainable is not None]
        return any(said) if said else None

    @property
    def nonfinite(self) -> int:
        """Non-finite entries in its tensors."""
        return sum(t.nonfinite for t in self.tensors)

    @property
    def size(self) -> int:
        """Entries of its weights and statistics."""
        return sum(t.info.size for t in self.tensors)


def layers_of(report: Report) -> tuple[LayerView, ...]:
    """The layers in the model's order where it is known, else in the container's."""
    census, spec = census_of(report), spec_of(report)
    stored: dict[str, list[TensorStats]] = {}
    for tensor in census.tensors if census else ():
        if tensor.info.layer is not None and tensor.info.role is not Role.SLOT:
            stored.setdefault(tensor.info.layer, []).append(tensor)
    return tuple(_views(spec.layers if spec else (), stored))


def _views(specs: Iterable[LayerSpec], stored: dict[str, list[TensorStats]]) -> Iterator[LayerView]:
    known = {s.name: s for s in specs}
    for name in dict.fromkeys((*known, *stored)):
        tensors = tuple(stored.get(name, ()))
        path = next((t.info.layer_path for t in tensors if t.info.layer_path), None)
        yield LayerView(name, path, known.get(name), tensors)


def _spec_field(name: str, attribute: str, kind: Kind, doc: str) -> Field:
    return Field(name, Optional(kind), doc, lambda v: v.spec and getattr(v.spec, attribute))


LAYER = Record(
    "layer",
    "One layer, nested ones as outer/inner.",
    (
        plain("name", TEXT, "the user's name"),
        _spec_field("class", "class_name", TEXT, "Keras class"),
        plain("path", Optional(TEXT), "address inside the container; null where nothing of it is stored"),
        plain("trainable", Optional(FLAG), "whether gradients may change it"),
        _spec_field("activation", "activation", TEXT, "its activation"),
        _spec_field("units", "units", INTEGER, "size of its output's last axis"),
        _spec_field("dtype_policy", "dtype_policy", TEXT, "its dtype policy"),
        _spec_field("inbound", "inbound", List(TEXT), "layers whose output it takes"),
        Field("variables", List(VARIABLE), "its stored tensors", lambda v: v.tensors),
    ),
)

# --- model set-up ------------------------------------------------------------------------------------------

LOSS = Record(
    "loss",
    "A loss of `compile`.",
    (
        plain("output", Optional(TEXT), "the output it belongs to"),
        plain("name", TEXT, "canonical or custom name"),
        plain("custom", FLAG, "true where it is not one of Keras' own"),
        plain("from_logits", FLAG, "as configured"),
    ),
)


def _compiled(name: str, default: object) -> Field:
    docs = {"losses": "losses", "metrics": "metrics", "jit_compile": "whether XLA was asked for"}
    kinds: dict[str, Kind] = {"losses": List(LOSS), "metrics": List(TEXT), "jit_compile": Optional(FLAG)}

    def get(spec: ModelSpec) -> object:
        return default if isinstance(spec.compile, Missing) else getattr(spec.compile, name)

    return Field(name, kinds[name], docs[name], get)


MODEL = Record(
    "model",
    "The model's configuration.",
    (
        plain("name", TEXT, "its name"),
        Field("class", TEXT, "Functional, Sequential or a custom class", lambda s: s.class_name),
        plain("graph_known", FLAG, "false for subclassed models, whose connections are not recorded"),
        plain("inputs", List(TEXT), "layers that take the input"),
        plain("outputs", List(TEXT), "layers that give the output"),
        plain("custom_objects", List(TEXT), "classes that are not Keras' own"),
        plain("global_policy", TEXT, "dtype policy shared by most layers"),
        _compiled("losses", ()),
        _compiled("metrics", ()),
        _compiled("jit_compile", None),
    ),
)

# --- optimizer -----------------------------------------------------------------------------------------------

GRADIENT = Record(
    "gradient",
    "What the optimizer remembers of one weight's gradient.",
    (
        plain("path", TEXT, "address of the weight"),
        plain("layer", Optional(TEXT), "its layer"),
        plain("variable", TEXT, "its name"),
        plain("gradient_rms", Optional(REAL), "root of the mean second moment"),
        plain("momentum_rms", Optional(REAL), "rms of the first moment"),
        plain("update_ratio", Optional(REAL), "rms of the last update over rms of the weight"),
        plain("weight_rms", Optional(REAL), "rms of the weight"),
    ),
)


@dataclass(frozen=True, slots=True)
class OptimizerView:
    """The optimizer's interpreted state with its stored tensors."""

    state: OptimizerState
    slots: tuple[TensorStats, ...]
    scalars: dict[str, float]


def optimizer_of(report: Report) -> OptimizerView | Missing:
    """The optimizer, if its state was read."""
    state, census = report.evidence.optimizer, census_of(report)
    if isinstance(state, Missing):
        return state
    return OptimizerView(state, census.of_role(Role.SLOT) if census else (), census.scalars if census else {})


def _state(name: str, kind: Kind, doc: str) -> Field:
    return Field(name, kind, doc, lambda v: getattr(v.state, name))


OPTIMIZER = Record(
    "optimizer",
    "The optimizer's state in the checkpoint.",
    (
        Field("class", Optional(TEXT), "Keras class", lambda v: v.state.class_name),
        _state("learning_rate", Optional(REAL), "in force at this checkpoint"),
        _state("learning_rate_source", TEXT, "where that number comes from"),
        _state("iterations", Optional(INTEGER), "steps taken"),
        _state("profile_ratio", Optional(REAL), "gradient rms of the first kernel over that of the last"),
        _state("loss_scale", Optional(REAL), "dynamic loss scale"),
        _state("skipped_updates", Optional(INTEGER), "steps without an update because of loss scaling"),
        _state("untouched_slots", FLAG, "true where every slot is zero although steps were taken"),
        _state("notes", List(TEXT), "remarks"),
        Field("scalars", Table(REAL), "the optimizer's own scalars", lambda v: v.scalars),
        _state("gradients", List(GRADIENT), "per weight, in the model's order"),
        Field("slots", List(SLOT), "its tensors", lambda v: v.slots),
    ),
)

FINGERPRINT = Record(
    "fingerprint",
    "The geometry of the non-finite entries.",
    (
        plain("layers", List(TEXT), "layers with non-finite weights or statistics"),
        plain("first_layer", Optional(TEXT), "the one nearest to the input"),
        plain("steps_since", Optional(INTEGER), "optimizer steps since the last healthy checkpoint"),
        Field(
            "patterns",
            List(
                Record(
                    "pattern",
                    "A regularity in where the non-finite entries stand.",
                    (
                        plain("kind", TEXT, "which regularity"),
                        plain("message", TEXT, "one sentence"),
                        plain("layer", Optional(TEXT), "layer it is about"),
                        plain("variable", Optional(TEXT), "variable it is about"),
                        plain("means", Optional(TEXT), "what the indices count"),
                        plain("indices", List(INTEGER), "the first 64"),
                        plain("count", INTEGER, "how many there are"),
                        plain("of", INTEGER, "out of how many"),
                    ),
                )
            ),
            "most telling first",
            lambda f: f.patterns,
        ),
    ),
)
