"""The trainer of the first stage: InfoNCE and a cosine margin loss."""

from __future__ import annotations

import torch

from ...command_line.ranges import check_values
from ...training.card import CardText
from ...training.clips import audio_inputs
from ...training.gather import at_least_float32, gather
from ..step_trainer import StepTrainer
from .losses import cosine_margin, info_nce
from .options import TwoStageOptions
from .sampler import CorpusSampling, SupConSampler


class SupConTrainer(StepTrainer):
    """Trains `GEmoClapForXVector` by supervised contrastive learning across corpora, eq. 5: `L = L_c + L_m`.

    `L_c` is InfoNCE (eq. 2 and 3) and `L_m` the cosine margin loss (eq. 4). Batches come from `AudioCollator` in the
    order of `SupConSampler`: the first half of the clips of each process are positives, the second half negatives.
    InfoNCE compares the positives of this process with the clips of all processes, gathered with their gradient. The
    cosine margin loss compares pairs within a process. Averaged over the processes, loss and gradient equal those of
    one process with the complete batch. Logged in addition to `loss`: `info_nce` and `cosine_margin`.

    Args:
        model: The encoder.
        args: `GEmoClapTrainingArguments` or `transformers.TrainingArguments`.
        *others: See `transformers.Trainer`.
        sampling: Corpus of every training clip, and the kind of negatives.
        temperature: Temperature of InfoNCE.
        alpha: Weight of the positive pairs in the cosine margin loss.
        margin: Margin of the cosine margin loss.
        **kwargs: See `transformers.Trainer`.

    Raises:
        ValueError: If `check` refuses the training arguments, a value is out of range, or the clips do not suffice for
            a step.
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
        sampling: CorpusSampling,
        temperature: float = 0.07,
        alpha: float = 0.5,
        margin: float = 0.4,
        **kwargs,
    ):
        check_values(TwoStageOptions, supcon_temperature=temperature, supcon_alpha=alpha, supcon_margin=margin)
        self._temperature, self._margin = temperature, (alpha, margin)
        self._sampling = sampling
        super().__init__(model, args, *others, **kwargs)

    def create_step_sampler(self, clips_per_step: int, processes: int, seed: int) -> SupConSampler:
        """See `StepTrainer`."""
        return SupConSampler(self.train_dataset.emotion_labels, self._sampling, clips_per_step, processes, seed)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return this process's part of the loss of the global batch."""
        outputs = model(**audio_inputs(inputs))
        positives, negatives = at_least_float32(outputs.embeddings).chunk(2)
        first = self.args.process_index * len(positives)
        with torch.autocast(positives.device.type, enabled=False):  # compare in full precision
            contrast = info_nce(positives, gather(positives), gather(negatives), self._temperature, first)
            margin = cosine_margin(positives, negatives, *self._margin)
        if model.training:
            # Every step of the sampler has positives and negatives, so there is always something to compare.
            self.record_step((outputs.embeddings,), terms={"info_nce": contrast, "cosine_margin": margin})
        loss = contrast + margin
        return (loss, outputs) if return_outputs else loss
