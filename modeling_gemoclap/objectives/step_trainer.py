"""The trainer of objectives whose sampler draws all clips of a step together."""

from __future__ import annotations

from ..training.samplers import StepSampler
from ..training.trainer import SpeechTrainer


class StepTrainer(SpeechTrainer):
    """Trains on the steps of a `StepSampler`. The loss compares the clips of a step with each other.

    The model predicts no emotion, so it is not evaluated during training.

    Args:
        *args: See `SpeechTrainer`.
        **kwargs: See `SpeechTrainer`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        clips_per_step = self.args.world_size * self.args.train_batch_size
        self._sampler = self.create_step_sampler(clips_per_step, self.args.world_size, seed)

    def create_step_sampler(self, clips_per_step: int, processes: int, seed: int) -> StepSampler:
        """Return the sampler.

        Args:
            clips_per_step: Number of clips of a step, on all processes together.
            processes: Number of processes.
            seed: Seed of all random draws.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, args) -> None:
        """See `SpeechTrainer.check`. Also refuses gradient accumulation, other samplers, and evaluation."""
        super().check(args)
        title = cls.__name__.removesuffix("Trainer")
        if args.gradient_accumulation_steps > 1:
            raise ValueError(
                f"{title} compares the clips of a batch with each other, so gradients of parts of a batch cannot be "
                f"accumulated: leave out gradient_accumulation_steps"
            )
        for name in ("class_balanced_sampling", "batch_by_length"):
            if getattr(args, name, False):
                raise ValueError(f"{title} composes batches by another sampler: leave out {name}")
        if getattr(args.eval_strategy, "value", args.eval_strategy) != "no" or args.eval_on_start:
            raise ValueError(f"{title} predicts no emotion to evaluate: leave out eval_strategy and eval_on_start")

    def _get_train_sampler(self, *args, **kwargs):
        return self._sampler
