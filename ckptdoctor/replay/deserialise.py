"""A model without weights from its configuration, through the loader that Keras itself uses for its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.failure import CannotReplay, brief
from ckptdoctor.replay.operations import name_operations
from ckptdoctor.replay.request import ReplayRequest


def deserialise(request: ReplayRequest, dialect: Dialect, config: dict[str, Any], known: Mapping[str, Any]) -> Any:
    """The model without weights; Keras 3 form first, legacy form where the configuration is one.

    Raises:
        CannotReplay: with the reason, and the remedy where there is one.
    """
    safe = not request.unsafe_lambda
    try:
        if dialect.legacy or not _new_style(config):
            return _deserialise_legacy(dialect, config, known, safe=safe)
        with dialect.keras.utils.custom_object_scope(dict(known)):
            return dialect.keras.saving.deserialize_keras_object(config, safe_mode=safe)
    except CannotReplay:
        raise
    except Exception as error:
        reason = f"the model cannot be rebuilt from its configuration ({brief(error)})"
        if newer_than_installed(request, dialect):
            reason += (
                f"; the file was written by Keras {request.keras_version}, newer than the installed {dialect.version}: "
                "pip install -U keras"
            )
        elif "Unknown layer" in str(error) or "Could not locate" in str(error) or "registered" in str(error):
            reason += "; give the module that defines its classes with --custom-objects"
        raise CannotReplay(reason) from error


def _new_style(config: Mapping[str, Any]) -> bool:
    return "module" in config or "registered_name" in config


def _deserialise_legacy(dialect: Dialect, config: dict[str, Any], known: Mapping[str, Any], *, safe: bool) -> Any:
    """A configuration of a legacy HDF5 file, through the loader that Keras itself uses for it."""
    if dialect.legacy:
        with dialect.keras.utils.custom_object_scope(dict(known)):
            if _new_style(config):
                return dialect.keras.saving.deserialize_keras_object(config, safe_mode=safe)
            return dialect.keras.models.model_from_config(config)
    from keras.src.legacy.saving import saving_options, saving_utils
    from keras.src.saving import serialization_lib

    operations = name_operations(config)
    with saving_options.keras_option_scope(use_legacy_config=True), serialization_lib.SafeModeScope(safe):
        return saving_utils.model_from_config(config, custom_objects={**known, **operations})


def newer_than_installed(request: ReplayRequest, dialect: Dialect) -> bool:
    """Whether a newer Keras than the installed one wrote the file."""
    return bool(version_numbers(request.keras_version or "")) and version_numbers(
        request.keras_version or ""
    ) > version_numbers(dialect.version)


def version_numbers(text: str) -> tuple[int, ...]:
    """`3.15.1` as numbers, up to the first part without one."""
    numbers = []
    for part in text.split(".")[:3]:
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
