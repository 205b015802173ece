"""The trainer of Xiang's first stage."""

from __future__ import annotations

import torch

from .arguments import refuse_values
from .collator import audio_inputs
from .gather import gather, precise
from .step_trainer import StepTrainer
from .supcon_losses import cosine_margin, info_nce
from .supcon_sampler import SupConSampler


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

    head = "supcon"

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
        refuse_values(supcon_temperature=temperature, supcon_alpha=alpha, supcon_margin=margin)
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
        positives, negatives = precise(outputs.embeddings).chunk(2)
        first = self.args.process_index * len(positives)
        with torch.autocast(positives.device.type, enabled=False):  # what is compared is not rounded
            contrast = info_nce(positives, gather(positives), gather(negatives), self._temperature, first)
            margin = cosine_margin(positives, negatives, *self._margin)
        if model.training:
            self._rows = (outputs.embeddings,)
            self.count_comparison(False)  # the sampler gives every step positives and negatives
            self.note({"info_nce": contrast, "cosine_margin": margin})
        loss = contrast + margin
        return (loss, outputs) if return_outputs else loss
