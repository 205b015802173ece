"""The interface of an objective: everything that differs between objectives."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..corpora.manifest import Corpus
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..training.arguments import Recipe
from ..training.clips import ClipDataset, ClipOptions
from ..training.frozen import collate_audio
from ..training.trainer import SpeechTrainer
from .audio_encoder import check_frozen_frames, check_shortened_audio, freeze_parts


class AudioCollator:
    """Collator for clips without texts: pads them into a batch.

    Args:
        extractor: The feature extractor.
    """

    def __init__(self, extractor: GEmoClapFeatureExtractor):
        self.extractor = extractor

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Collate items with `clip` and `emotion_label` into audio inputs and `emotion_labels`."""
        batch = collate_audio(self.extractor, examples)
        return batch | {"emotion_labels": torch.tensor([example["emotion_label"] for example in examples])}


class Objective(ABC):
    """A training objective. Each run has one instance.

    A subclass sets the attributes below, implements `build`, and overrides the methods that differ. Its trainer, a
    subclass of `SpeechTrainer`, defines the loss, the sampler, the logged terms and the text of the model card.

    Attributes:
        name: Value of `--head`.
        title: Name of the objective in messages.
        Options: Dataclass of the options that only this objective has.
        trainer_class: Class of the trainer.
        weight_options: Names of the fields of `Options` that name pretrained weights.
        reads_emotions: Whether training reads emotion labels; if not, `build` gets an empty list.
        predicts_emotions: Whether the model returns logits of emotions, so that it can be evaluated and calibrated.
        reads_shards: Whether clips may come from Parquet shards, which are read in order.
        unsupported: Shared options that the objective does not support, each with the reason.

    Args:
        recipe: Options of the run; `recipe.options` is an instance of `Options`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type]
    trainer_class: ClassVar[type[SpeechTrainer]]
    weight_options: ClassVar[tuple[str, ...]] = ()
    reads_emotions: ClassVar[bool] = True
    predicts_emotions: ClassVar[bool] = True
    reads_shards: ClassVar[bool] = True
    unsupported: ClassVar[dict[str, str]] = {}

    def __init__(self, recipe: Recipe):
        self.recipe, self.options = recipe, recipe.options

    def libraries(self) -> tuple[str, ...]:
        """Return the packages that the weights depend on in addition to those of every training."""
        return ()

    def check(self) -> None:
        """Raise a `ValueError` if options contradict each other. Called when options are parsed."""
        if self.recipe.model.freeze_audio_encoder and self.recipe.model.unfreeze_last_n_layers is not None:
            raise ValueError("--freeze_audio_encoder and --unfreeze_last_n_layers contradict each other: give one")
        check_shortened_audio(self.recipe.model)
        data = self.recipe.data
        check_frozen_frames(self.recipe.model, data)
        if data.num_dev_speakers or data.dev_speakers or data.calibration_folds or data.select != "last":
            self.check_development()

    def check_development(self) -> None:
        """Raise a `ValueError` if the model cannot be evaluated on development clips."""
        if not self.predicts_emotions:
            raise ValueError(
                f"{self.title} predicts no emotion, so it has no development clips and no calibration: leave out "
                "--num_dev_speakers, --dev_speakers, --select and --calibration_folds"
            )

    def check_clips(self, train: Corpus) -> None:  # noqa: B027
        """Raise a `ValueError` if the training clips do not suffice. Called before any recording is read."""

    @abstractmethod
    def build(self, emotions: list[str]) -> tuple:
        """Return the model, in training mode, and its processor or feature extractor."""

    def dataset(self, corpus: Corpus, extractor, config, options: ClipOptions) -> tuple[ClipDataset, list[str]]:
        """Return the training clips, and the errors of the clips that were skipped."""
        return ClipDataset(corpus, extractor, config, options), []

    def collator(self, processor, config):
        """Return the function that makes a batch of items of the dataset."""
        return AudioCollator(processor)

    def initialise(self, model, dataset: ClipDataset, collator) -> None:  # noqa: B027
        """Adjust the initial weights before the first step. Not called when a run is resumed."""

    def trained_module(self, model, dataset: ClipDataset):
        """Freeze the parts that are not trained, and return the module for the trainer; it may wrap the model."""
        return freeze_parts(model, self.recipe.model)

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """Return the keyword arguments of `trainer_class` that are specific to it."""
        return {}

    def next_step(self, run_folder: str, protocol_options: list[str]) -> str:
        """Return a sentence with the next command after all folds of a protocol are trained."""
        if not self.predicts_emotions:
            return f"all folds are trained. Fine-tune them: train.py --init_from {run_folder}, with the same protocol"
        options = ["--model", run_folder, "--data_dir", *self.recipe.data.data_dir, *protocol_options]
        return f"all folds are trained. Evaluate them: python evaluate.py {shlex.join(options)}"
