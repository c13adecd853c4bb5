"""Names that Keras itself defines: what is not here is somebody's own code."""

from __future__ import annotations

from typing import Any

from ckptdoctor.evidence.serialized import mapping, snake
from ckptdoctor.evidence.serialized import text as string


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


LAYERS = words(
    """Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
    AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization
    BatchNormalizationV1 BatchNormalizationV2 Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D
    Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CutMix Dense DenseFeatures DepthwiseConv1D DepthwiseConv2D Discretization
    Dot Dropout ELU EinsumDense Embedding Equalization FeatureSpace FlaxLayer Flatten GRU GRUCell GRUV1 GRUV2
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing
    Hashing Identity InputLayer IntegerLookup JaxLayer LSTM LSTMCell LSTMV1 LSTMV2 Lambda LayerNormalization LeakyReLU
    LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN
    RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding
    STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup Subtract SyncBatchNormalization
    TFOpLambda SlicingOpLambda TensorFlowOpLayer TFSMLayer TextVectorization ThresholdedReLU TimeDistributed
    TorchModuleWrapper UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D Functional Sequential Model"""
)

SETTINGS = {
    "Attention": words("use_scale score_mode dropout"),
    "AdditiveAttention": words("use_scale dropout"),
    "MultiHeadAttention": words("num_heads key_dim"),
    "LayerNormalization": words("epsilon axis"),
    "GroupNormalization": words("groups"),
    "UnitNormalization": words("axis"),
    "RMSNormalization": words("epsilon axis"),
}
"""Names that people give layers of their own as well, with settings of which Keras' layer of that name saves at least one."""

OPTIMIZERS = words(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer LossScaleOptimizerV1 "
    "LossScaleOptimizerV3 Muon Nadam RMSprop ScheduleFreeAdamW SGD"
)

ACTIVATION_LAYERS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "ELU": "elu",
    "Softmax": "softmax",
    "ThresholdedReLU": "thresholded_relu",
}

ACTIVATIONS = words(
    """celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish prelu relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus tanh tanh_shrink threshold thresholded_relu"""
)

_ACTIVATION_ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "re_lu": "relu",
    "leakyrelu": "leaky_relu",
    "p_relu": "prelu",
    "identity": "linear",
}

_LOSS_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "kldivergence": "kl_divergence",
    "logcosh": "log_cosh",
    "cosine_proximity": "cosine_similarity",
    "huber_loss": "huber",
    "bcefl": "binary_focal_crossentropy",
    "ctc_loss": "ctc",
    "mean_squared_error_loss": "mean_squared_error",
}

LOSSES = words(
    """binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy
    categorical_generalized_cross_entropy categorical_hinge circle cosine_similarity ctc dice hinge huber kl_divergence
    log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error
    poisson sparse_categorical_crossentropy squared_hinge tversky"""
)

YOUNG_LOSSES = words("circle ctc dice tversky categorical_generalized_cross_entropy")
"""Keras' own only since Keras 3: a bare name of these is as often a function that somebody wrote."""

_METRICS = words(
    """accuracy acc binary_accuracy categorical_accuracy sparse_categorical_accuracy top_k_categorical_accuracy
    sparse_top_k_categorical_accuracy mean mean_metric_wrapper precision recall auc r2_score f1_score fbeta_score iou
    binary_io_u mean_io_u one_hot_io_u one_hot_mean_io_u root_mean_squared_error mean_relative_error sum
    false_negatives false_positives true_negatives true_positives precision_at_recall recall_at_precision
    sensitivity_at_specificity specificity_at_sensitivity crossentropy concordance_correlation
    pearson_correlation"""
)


def activation_name(value: Any) -> str | None:
    """Canonical name of a serialised activation: a string, a function object or a layer object; None for null."""
    if isinstance(value, str):
        name = value.rpartition(">")[2]
    else:
        found = mapping(value)
        name = string(found.get("class_name")) or ""
        if name == "__lambda__":
            return "lambda"
        if name == "function" or isinstance(found.get("config"), str):
            name = string(found.get("config")) or name
        elif name == "Activation":
            return activation_name(mapping(found.get("config")).get("activation"))
        name = name.rpartition(">")[2]
    if not name:
        return None
    if name in ACTIVATION_LAYERS:
        return ACTIVATION_LAYERS[name]
    lowered = name if name.lower() == name else snake(name)
    lowered = _ACTIVATION_ALIASES.get(lowered, lowered)
    return lowered if lowered in ACTIVATIONS else name


def loss_name(name: str) -> str:
    """Canonical snake-case name of a loss; a custom one keeps its spelling."""
    lowered = name.rpartition(">")[2]
    lowered = lowered.lower() if lowered.isupper() or lowered.lower() == lowered else snake(lowered)
    lowered = _LOSS_ALIASES.get(lowered, lowered)
    return lowered if lowered in LOSSES else name


def is_known_function(name: str) -> bool:
    """Whether Keras defines a loss, metric or activation of this name."""
    return loss_name(name) in LOSSES or activation_name(name) in ACTIVATIONS or snake(name) in _METRICS
