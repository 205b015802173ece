"""The interface of an objective: all that differs between one objective and another."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from typing import ClassVar

from ..corpora.manifest import Corpus
from ..training.arguments import Recipe
from ..training.clips import AudioCollator, ClipDataset, ClipOptions
from ..training.trainer import SpeechTrainer
from .audio_encoder import freeze_parts


class Objective(ABC):
    """What a model is taught. One instance serves one run.

    A subclass sets the attributes below, implements `build`, and overrides what differs. The loss, the sampler, the
    logged terms and the sentences for the model card belong to its trainer, a subclass of `SpeechTrainer`.

    Attributes:
        name: Value of `--head`.
        title: Name in messages.
        Options: Dataclass of the options that only this objective has.
        trainer_class: Its trainer.
        weight_options: Those of `Options` that name pretrained weights.
        reads_emotions: Whether it trains on emotion labels.
        predicts_emotions: Whether its model gives logits of emotions, so that it can be evaluated and calibrated.
        reads_shards: Whether clips may come from Parquet shards, which are read in order.
        unsupported: Shared options that have no meaning here, each with the reason.

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
        """Distributions that the weights depend on, beside those of every training."""
        return ()

    def check(self) -> None:  # noqa: B027
        """Raise a `ValueError` if options contradict each other. Called before anything is read."""

    @abstractmethod
    def build(self, emotions: list[str]) -> tuple:
        """Return the model, in training mode, and its processor or feature extractor."""

    def dataset(self, corpus: Corpus, extractor, config, options: ClipOptions) -> tuple[ClipDataset, list[str]]:
        """Return the training clips, and the errors of the clips that were left out."""
        return ClipDataset(corpus, extractor, config, options), []

    def collator(self, processor, config):
        """Return what turns items of the dataset into a batch."""
        return AudioCollator(processor)

    def initialise(self, model, dataset: ClipDataset, collator) -> None:  # noqa: B027
        """Change the initial weights before the first step. Not called when a run is resumed."""

    def trained_module(self, model, dataset: ClipDataset):
        """Freeze what is not trained, and return the module that the trainer gets."""
        return freeze_parts(model, self.recipe.model)

    def caches_frozen_frames(self) -> bool:
        """Whether the output of a frozen audio encoder is computed once instead of in every epoch."""
        return False

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """Return keyword arguments of `trainer_class` that other trainers do not have."""
        return {}

    def next_step(self, run_folder: str, protocol_options: list[str]) -> str:
        """Say what to do with a finished protocol run."""
        words = ["--model", run_folder, "--data_dir", *self.recipe.data.data_dir, *protocol_options]
        return f"all folds are trained. Evaluate them: python evaluate.py {shlex.join(words)}"
