"""The trainer of Xiang's first stage."""

from __future__ import annotations

import torch

from .base_trainer import SpeechTrainer
from .collator import audio_inputs
from .gather import gather, precise
from .supcon_losses import cosine_margin, info_nce
from .supcon_sampler import SupConSampler


class SupConTrainer(SpeechTrainer):
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
        ValueError: If `check` does not pass, or the clips are not enough for a step.
    """

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
        self._temperature, self._margin = temperature, (alpha, margin)
        self._terms: list[torch.Tensor] = []
        super().__init__(model, args, *others, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        step = self.args.world_size * self.args.train_batch_size
        labels = self.train_dataset.emotion_labels
        self._sampler = SupConSampler(labels, corpora, step, self.args.world_size, seed, negatives, names)

    @classmethod
    def check(cls, args) -> None:
        """As `SpeechTrainer.check`; the parts of a batch would not add up to the batch, and nothing is predicted."""
        super().check(args)
        if args.gradient_accumulation_steps > 1 or getattr(args, "contrastive_chunk_size", None) is not None:
            raise ValueError(
                "head supcon compares the clips of a batch with each other, so that its parts do not add up to it: "
                "leave out gradient_accumulation_steps and contrastive_chunk_size"
            )
        if getattr(args, "class_balanced_sampling", False):
            raise ValueError("head supcon draws positives and negatives itself: leave out class_balanced_sampling")

    def _get_train_sampler(self, *args, **kwargs):
        return self._sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the loss of the global batch; see the class."""
        outputs = model(**audio_inputs(inputs))
        positives, negatives = precise(outputs.embeddings).chunk(2)
        first = self.args.process_index * len(positives)
        contrast = info_nce(positives, gather(positives), gather(negatives), self._temperature, first)
        margin = cosine_margin(positives, negatives, *self._margin)
        if model.training:
            self._terms.append(torch.stack([contrast, margin]).detach())
        loss = contrast + margin
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add both terms of the loss; see the class."""
        if "loss" in logs and self._terms:
            terms = gather(torch.stack(self._terms).mean(0)[None]).mean(0)
            logs |= {
                name: round(term.item(), 6) for name, term in zip(("info_nce", "cosine_margin"), terms, strict=True)
            }
            self._terms = []
        super().log(logs, *args, **kwargs)
