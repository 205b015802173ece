"""The trainer of the first stage: InfoNCE and a cosine margin."""

from __future__ import annotations

import torch

from ...command_line.ranges import check_values
from ...training.card import CardText
from ...training.clips import audio_inputs
from ...training.gather import at_least_float32, gather
from ..step_trainer import StepTrainer
from .losses import cosine_margin, info_nce
from .options import TwoStageOptions
from .sampler import SupConSampler


class SupConTrainer(StepTrainer):
    """Trains `GEmoClapForXVector` by supervised contrast across corpora, eq. 5: `L = L_c + L_m`.

    Batches are those of `AudioCollator` in the order of `SupConSampler`: of each process's clips the first half are
    positives, the second negatives. InfoNCE compares a process's own positives with those of all processes, gathered
    with their gradient; the margin's pairs lie within a process. Averaged over the processes, loss and gradient are
    those of one process with the whole batch. Logged beside `loss`: `info_nce` and `cosine_margin`.

    Args:
        model: The encoder.
        args: `GEmoClapTrainingArguments`, or transformers' own.
        *others: As for `transformers.Trainer`.
        corpora: Corpus of every training clip, a number from 0.
        names: Names of the corpora and of the emotions.
        temperature: Of InfoNCE.
        alpha: Weight of the margin's positive pairs.
        margin: The margin.
        negatives: As for `SupConSampler`.
        **kwargs: As for `transformers.Trainer`.

    Raises:
        ValueError: If `check` does not pass, a number is out of its range, or the clips are not enough for a step.
    """

    card_text = CardText(
        title="an encoder that has no head yet",
        summary="An audio encoder with its pooling, trained by supervised contrastive learning (the first stage of "
        "Xiang's two-stage fine-tuning): clips of one emotion have similar embeddings"
        "{% if config.training_data and config.training_data | length > 1 %} across corpora{% endif %}. The model has "
        "no head and no text encoder. `train.py --init_from` starts a classifier or GEmo-CLAP from it.",
        objective="InfoNCE and a cosine margin",
        references="Two-stage supervised contrastive fine-tuning: M. Xiang, *A Cross-Corpus Speech Emotion "
        "Recognition Method Based on Supervised Contrastive Learning*.",
    )

    def __init__(
        self,
        model=None,
        args=None,
        *others,
        corpora: list[int],
        names: tuple[list[str], list[str]],
        temperature: float = 0.07,
        alpha: float = 0.5,
        margin: float = 0.4,
        negatives: str = "emotion",
        **kwargs,
    ):
        check_values(TwoStageOptions, supcon_temperature=temperature, supcon_alpha=alpha, supcon_margin=margin)
        self._temperature, self._margin = temperature, (alpha, margin)
        self._dealt = (corpora, negatives, names)
        super().__init__(model, args, *others, **kwargs)

    def deal(self, step: int, processes: int, seed: int) -> SupConSampler:
        """See `StepTrainer`."""
        corpora, negatives, names = self._dealt
        return SupConSampler(self.train_dataset.emotion_labels, corpora, step, processes, seed, negatives, names)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the loss of the global batch; see the class."""
        outputs = model(**audio_inputs(inputs))
        positives, negatives = at_least_float32(outputs.embeddings).chunk(2)
        first = self.args.process_index * len(positives)
        with torch.autocast(positives.device.type, enabled=False):  # what is compared is not rounded
            contrast = info_nce(positives, gather(positives), gather(negatives), self._temperature, first)
            margin = cosine_margin(positives, negatives, *self._margin)
        if model.training:
            # The sampler gives every step positives and negatives.
            self.record_step((outputs.embeddings,), terms={"info_nce": contrast, "cosine_margin": margin})
        loss = contrast + margin
        return (loss, outputs) if return_outputs else loss
