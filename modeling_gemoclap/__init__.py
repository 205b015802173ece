"""GEmo-CLAP: speech emotion recognition by gender-aware contrastive language-audio pretraining.

Public names are imported when they are used, so that `import modeling_gemoclap` and the `gemoclap` command start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .registration import register_with_auto_classes
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .audio_encoder_gemoclap import GEmoClapAudioModel
    from .configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
    from .estimators.model import GEmoClap
    from .estimators.sklearn import GEmoClapClassifier as GEmoClapClassifier
    from .feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
    from .heads_gemoclap import GEmoClapOutput
    from .inference.predictions import NONE_OF_THESE, Prediction
    from .inference.segments import Segment, TimelineOptions
    from .inference.stream import EmotionStream
    from .modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
    from .objectives.gemo_clap.trainer import GEmoClapTrainer as GEmoClapTrainer
    from .pipeline_gemoclap import ZeroShotEmotionPipeline
    from .processing_gemoclap import GEmoClapProcessor

# GEmoClapClassifier and GEmoClapTrainer are omitted: a star import must not require scikit-learn and accelerate.
__all__ = [
    "AudioError",
    "EmotionStream",
    "GEmoClap",
    "GEmoClapAudioConfig",
    "GEmoClapAudioModel",
    "GEmoClapConfig",
    "GEmoClapFeatureExtractor",
    "GEmoClapForAudioClassification",
    "GEmoClapForXVector",
    "GEmoClapModel",
    "GEmoClapOutput",
    "GEmoClapProcessor",
    "NONE_OF_THESE",
    "Prediction",
    "Segment",
    "TimelineOptions",
    "ZeroShotEmotionPipeline",
]

_MODULES = {
    "AudioError": "feature_extraction_gemoclap",
    "EmotionStream": "inference.stream",
    "GEmoClap": "estimators.model",
    "GEmoClapAudioConfig": "configuration_gemoclap",
    "GEmoClapAudioModel": "audio_encoder_gemoclap",
    "GEmoClapClassifier": "estimators.sklearn",
    "GEmoClapConfig": "configuration_gemoclap",
    "GEmoClapFeatureExtractor": "feature_extraction_gemoclap",
    "GEmoClapForAudioClassification": "modeling_gemoclap",
    "GEmoClapForXVector": "modeling_gemoclap",
    "GEmoClapModel": "modeling_gemoclap",
    "GEmoClapOutput": "heads_gemoclap",
    "GEmoClapProcessor": "processing_gemoclap",
    "GEmoClapTrainer": "objectives.gemo_clap.trainer",
    "NONE_OF_THESE": "inference.predictions",
    "Prediction": "inference.predictions",
    "Segment": "inference.segments",
    "TimelineOptions": "inference.segments",
    "ZeroShotEmotionPipeline": "pipeline_gemoclap",
}

register_with_auto_classes()


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .registration import register

    register()
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
