"""GEmo-CLAP: speech emotion recognition by gender-aware contrastive language-audio pretraining."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioXVector,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .audio_encoder_gemoclap import GEmoClapAudioModel
from .configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
from .feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from .heads_gemoclap import GEmoClapOutput
from .modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
from .pipeline_gemoclap import ZeroShotEmotionPipeline
from .processing_gemoclap import GEmoClapProcessor
from .version import __version__ as __version__

__all__ = [
    "AudioError",
    "GEmoClapAudioConfig",
    "GEmoClapAudioModel",
    "GEmoClapConfig",
    "GEmoClapFeatureExtractor",
    "GEmoClapForAudioClassification",
    "GEmoClapForXVector",
    "GEmoClapModel",
    "GEmoClapOutput",
    "GEmoClapProcessor",  # GEmoClapTrainer is omitted, because a star import must not require accelerate
    "ZeroShotEmotionPipeline",
]

# With this registration, the auto classes load checkpoints without trust_remote_code once the package is imported. It
# must not be in a file that is saved with checkpoints, whose classes exist once for each checkpoint.
AutoConfig.register("gemoclap", GEmoClapConfig, exist_ok=True)
AutoConfig.register("gemoclap_audio", GEmoClapAudioConfig, exist_ok=True)
AutoModel.register(GEmoClapConfig, GEmoClapModel, exist_ok=True)
AutoModel.register(GEmoClapAudioConfig, GEmoClapAudioModel, exist_ok=True)
AutoModelForAudioClassification.register(GEmoClapConfig, GEmoClapForAudioClassification, exist_ok=True)
AutoModelForAudioXVector.register(GEmoClapConfig, GEmoClapForXVector, exist_ok=True)
AutoFeatureExtractor.register(GEmoClapConfig, GEmoClapFeatureExtractor, exist_ok=True)
AutoProcessor.register(GEmoClapConfig, GEmoClapProcessor, exist_ok=True)
if "zero-shot-emotion-recognition" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        "zero-shot-emotion-recognition", pipeline_class=ZeroShotEmotionPipeline, pt_model=AutoModel, type="multimodal"
    )


def __getattr__(name: str):
    if name == "GEmoClapTrainer":  # imported lazily, because it requires accelerate, which inference does not
        from .objectives.gemo_clap.trainer import GEmoClapTrainer

        return GEmoClapTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
