"""The trainer for objectives whose sampler draws the clips of a whole step together."""

from __future__ import annotations

from ..training.samplers import StepSampler
from ..training.trainer import SpeechTrainer


class StepTrainer(SpeechTrainer):
    """Trains on the steps of a `StepSampler`, whose clips are compared with each other.

    It names no emotion, so it is not evaluated during training.

    Args:
        *args: As for `SpeechTrainer`.
        **kwargs: Likewise.
    """

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
        """As `SpeechTrainer.check`; the loss of a batch is not the sum of its parts' losses, and is not evaluated."""
        super().check(args)
        what = cls.__name__.removesuffix("Trainer")
        if args.gradient_accumulation_steps > 1:
            raise ValueError(
                f"{what} compares the clips of a batch with each other, so gradients of parts of it cannot be "
                f"accumulated: leave out gradient_accumulation_steps"
            )
        if getattr(args, "class_balanced_sampling", False):
            raise ValueError(f"{what} has a sampler that composes batches: leave out class_balanced_sampling")
        if getattr(args.eval_strategy, "value", args.eval_strategy) != "no" or args.eval_on_start:
            raise ValueError(f"{what} predicts no emotion to evaluate: leave out eval_strategy and eval_on_start")

    def _get_train_sampler(self, *args, **kwargs):
        return self._sampler
