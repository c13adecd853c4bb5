"""Operations between the layers of a functional model, in the legacy files of Keras 3."""

import copy

import pytest

from ckptdoctor.replay.operations import name_operations

pytestmark = pytest.mark.replay


def entry(class_name: str, **config):
    return {"class_name": class_name, "config": {"name": class_name.lower(), **config}}


def model(*layers):
    return {"class_name": "Functional", "config": {"name": "net", "layers": list(layers)}}


def test_an_operation_is_told_from_a_layer_of_the_same_name():
    config = model(entry("Multiply"), entry("Multiply", trainable=True), model(entry("GetItem")))
    classes = name_operations(config)
    first, second, inner = config["config"]["layers"]
    assert ("operation>Multiply", "Multiply") == (first["class_name"], second["class_name"])
    assert "operation>GetItem" == inner["config"]["layers"][0]["class_name"]
    assert {"operation>Multiply", "operation>GetItem"} == set(classes)
    assert classes["operation>Multiply"].__module__ == "keras.src.ops.numpy"


@pytest.mark.parametrize("class_name", ["Lambda", "Map", "os.system", "VectorizedMap"])
def test_nothing_but_harmless_operations_is_named(class_name):
    config = model(entry(class_name))
    before = copy.deepcopy(config)
    assert {} == name_operations(config)
    assert before == config


def test_a_legacy_file_with_operations_is_rebuilt(tmp_path):
    import keras
    import numpy as np
    from keras.src.legacy.saving import saving_options, saving_utils

    inputs = keras.Input((4, 3))
    states = keras.layers.LSTM(5, return_sequences=True)(inputs)
    net = keras.Model(inputs, keras.ops.exp(states[:, -1]) * 2.0)
    net.save(tmp_path / "net.h5")
    import json

    import h5py

    with h5py.File(tmp_path / "net.h5") as file:
        config = json.loads(file.attrs["model_config"])
    classes = name_operations(config)
    with saving_options.keras_option_scope(use_legacy_config=True):
        again = saving_utils.model_from_config(config, custom_objects=classes)
    again.set_weights(net.get_weights())
    x = np.ones((2, 4, 3), "float32")
    np.testing.assert_array_equal(net.predict(x, verbose=0), again.predict(x, verbose=0))
