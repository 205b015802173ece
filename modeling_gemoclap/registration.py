"""Registration with the auto classes of transformers, so that they load checkpoints without `trust_remote_code`.

It must not be in a file that is saved with checkpoints, whose classes exist once for each checkpoint.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder

AUTO_CLASSES = tuple(
    f"transformers.models.auto.{name}_auto"
    for name in ("configuration", "modeling", "feature_extraction", "processing")
)
PIPELINES = "transformers.pipelines"
TASK = "zero-shot-emotion-recognition"


def register() -> None:
    """Register configurations, models and processors, and the pipeline if `transformers.pipelines` is imported."""
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoModelForAudioXVector,
        AutoProcessor,
    )

    from .audio_encoder_gemoclap import GEmoClapAudioModel
    from .configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
    from .feature_extraction_gemoclap import GEmoClapFeatureExtractor
    from .modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
    from .processing_gemoclap import GEmoClapProcessor

    AutoConfig.register("gemoclap", GEmoClapConfig, exist_ok=True)
    AutoConfig.register("gemoclap_audio", GEmoClapAudioConfig, exist_ok=True)
    AutoModel.register(GEmoClapConfig, GEmoClapModel, exist_ok=True)
    AutoModel.register(GEmoClapAudioConfig, GEmoClapAudioModel, exist_ok=True)
    AutoModelForAudioClassification.register(GEmoClapConfig, GEmoClapForAudioClassification, exist_ok=True)
    AutoModelForAudioXVector.register(GEmoClapConfig, GEmoClapForXVector, exist_ok=True)
    AutoFeatureExtractor.register(GEmoClapConfig, GEmoClapFeatureExtractor, exist_ok=True)
    AutoProcessor.register(GEmoClapConfig, GEmoClapProcessor, exist_ok=True)
    if _is_imported(PIPELINES):
        _register_pipeline()


def _register_pipeline() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipeline_gemoclap import ZeroShotEmotionPipeline

    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(TASK, ZeroShotEmotionPipeline, AutoModel, type="multimodal")


def register_with_auto_classes() -> None:
    """Register as soon as the auto classes and the pipelines are imported, without importing them.

    Their import takes longer than that of torch, which `import modeling_gemoclap` and `gemoclap --help` need not wait
    for.
    """
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _is_imported(name: str) -> bool:
    """Whether the import of a module is complete."""
    return name in sys.modules and not getattr(sys.modules[name].__spec__, "_initializing", False)


class _AfterImport(MetaPathFinder):
    """Registers after the import of the auto classes, and the pipeline after that of `transformers.pipelines`.

    While a file of this package or a module of transformers is being imported, some classes do not exist yet; it then
    registers after the import of that file, or of the next one of these modules.
    """

    def __init__(self):
        self.awaited = {*AUTO_CLASSES, PIPELINES}
        self.due = [name for name in self.awaited if _is_imported(name)]
        self.awaited -= {*self.due}
        self.register_if_possible(None)

    def register_if_possible(self, imported: str | None) -> None:
        """Register what is due, if only `imported`, whose content is complete, is still being imported."""
        if self.due and all(map(_is_imported, filter(_is_relevant, sys.modules.keys() - {imported}))):
            due, self.due = self.due, []
            register()
            if PIPELINES in due:
                _register_pipeline()

    def find_spec(self, name, path=None, target=None):
        if not _is_relevant(name):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module) -> None:
            execute(module)
            if name in self.awaited:
                self.awaited.remove(name)
                self.due.append(name)
            self.register_if_possible(name)

        spec.loader.exec_module = execute_and_register
        return spec


def _is_relevant(name: str) -> bool:
    """Whether it is a module of transformers, or a file of this package that is saved with checkpoints."""
    of_package = name.startswith(f"{__package__}.") and name.endswith("_gemoclap")
    return of_package or name.startswith("transformers.")
