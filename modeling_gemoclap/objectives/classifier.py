"""The baseline: an audio encoder with a linear or two-layer head, trained by cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..command_line.parser import option
from ..command_line.ranges import COUNT, DROPOUT
from ..modeling_gemoclap import GEmoClapForAudioClassification
from ..training.card import CardText
from ..training.clips import audio_inputs
from ..training.gather import gather
from ..training.trainer import SpeechTrainer
from .audio_encoder import build_audio_model
from .base import Objective


@dataclass
class ClassifierOptions:
    """Classifier (--head classifier)."""

    classifier_hidden_size: int | None = option(None, "Hidden size of the head; none: a linear head", within=COUNT)
    classifier_dropout: float = option(0.0, "Dropout before the head", within=DROPOUT)


class ClassifierTrainer(SpeechTrainer):
    """Trains `GEmoClapForAudioClassification` by cross-entropy.

    The loss is `-log softmax(logits)[label]`, averaged over the clips of known emotion in the global batch. Batches
    come from `AudioCollator`.

    Args:
        model: The classifier.
        args: `GEmoClapTrainingArguments` or `transformers.TrainingArguments`.
        *others: See `transformers.Trainer`.
        **kwargs: See `transformers.Trainer`.

    Raises:
        ValueError: If `check` refuses the training arguments.
    """

    smooths_labels = True
    comparison = "a batch needs a clip whose emotion is known"
    card_text = CardText(
        title="a classifier",
        summary="An audio encoder with a {% if config.classifier_hidden_size %}two-layer{% else %}linear{% endif %} "
        "head, trained by cross-entropy{% if stage %} on an audio encoder that was trained before, as {{ stage }}"
        "{% else %}: the baseline of [GEmo-CLAP](https://arxiv.org/abs/2306.07848){% endif %}.",
        objective="cross-entropy",
    )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the mean cross-entropy, with `label_smoothing_factor`, of the labelled clips of the global batch."""
        labels = inputs["emotion_labels"].clamp_min(-1)
        outputs = model(**audio_inputs(inputs))
        known = gather((labels >= 0).sum()[None]).sum()
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        total = F.cross_entropy(outputs.logits, labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        loss = total * self.args.world_size / known.clamp_min(1)  # gradients are averaged over the processes
        if model.training:
            self.record_step((outputs.logits,), nothing_compared=known == 0)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return no loss, the logits `(batch, emotions)`, and the labels `(batch,)`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**audio_inputs(inputs)).logits
        return None, logits.float(), inputs["emotion_labels"]


class Classifier(Objective):
    """The objective of `ClassifierTrainer`: cross-entropy over the emotions."""

    name, title = "classifier", "the classifier"
    Options, trainer_class = ClassifierOptions, ClassifierTrainer

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        values = {name: getattr(self.options, name) for name in ("classifier_hidden_size", "classifier_dropout")}
        return build_audio_model(GEmoClapForAudioClassification, self.recipe.model, values | {"emotions": emotions})
