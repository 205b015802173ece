"""What the trainers share whose sampler deals out whole steps."""

from __future__ import annotations

from .base_trainer import SpeechTrainer
from .samplers import StepSampler


class StepTrainer(SpeechTrainer):
    """Trains on the steps of a `StepSampler`, whose clips are compared with each other; as `SpeechTrainer` otherwise.

    Args:
        *args: As for `SpeechTrainer`.
        **kwargs: Likewise.
    """

    head = ""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._sampler = self.deal(self.args.world_size * self.args.train_batch_size, self.args.world_size, seed)

    def deal(self, step: int, processes: int, seed: int) -> StepSampler:
        """The sampler.

        Args:
            step: Clips of a step, on all processes together.
            processes: How many processes there are.
            seed: Of all that is drawn.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, args) -> None:
        """As `SpeechTrainer.check`; the parts of a step would not add up to it, and its size is fixed."""
        super().check(args)
        if args.gradient_accumulation_steps > 1 or getattr(args, "contrastive_chunk_size", None) is not None:
            raise ValueError(
                f"head {cls.head} compares the clips of a batch with each other, so that its parts do not add up to "
                f"it: leave out gradient_accumulation_steps and contrastive_chunk_size"
            )
        if getattr(args, "class_balanced_sampling", False):
            raise ValueError(f"head {cls.head} deals clips into batches itself: leave out class_balanced_sampling")
        if getattr(args.eval_strategy, "value", args.eval_strategy) != "no" or args.eval_on_start:
            raise ValueError(
                f"head {cls.head} names no emotion to evaluate: leave out eval_strategy and eval_on_start"
            )

    def _get_train_sampler(self, *args, **kwargs):
        return self._sampler
