"""The objective of the probe: a frozen, pretrained audio encoder under logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

from ...command_line.parser import option
from ...command_line.ranges import NOT_NEGATIVE, POSITIVE, Range
from ...corpora.manifest import Corpus
from ...modeling_gemoclap import GEmoClapForAudioClassification
from ...training.augmentation import AUGMENTATIONS
from ...training.clips import ClipDataset
from ..audio_encoder import build_audio_model
from ..base import Objective
from .trainer import POOLED, ProbeTrainer

COMPLETE = "it regresses complete and unchanged clips"
NO_EPOCHS = "a regression has no epochs to choose from"


@dataclass
class ProbeOptions:
    """Frozen encoder under logistic regression (--head probe)."""

    probe_layer: int | None = option(
        None,
        "Layer of the encoder, 0: the input of the first; none: chosen by folds of training speakers",
        within=NOT_NEGATIVE,
    )
    probe_c: float | None = option(
        None, "C, inverse strength of the penalty; none: chosen by folds of training speakers", within=POSITIVE
    )
    probe_folds: int = option(5, "Number of folds of training speakers for these choices", within=Range(at_least=2))


class Probe(Objective):
    """The objective of `ProbeTrainer`: what a frozen encoder knows about emotions, read by a linear model."""

    name, title = "probe", "the probe of a frozen encoder"
    Options, trainer_class = ProbeOptions, ProbeTrainer
    reads_shards = False
    unsupported = {
        **dict.fromkeys((*AUGMENTATIONS, "max_seconds"), COMPLETE),
        **dict.fromkeys(("select", "eval_strategy", "load_best_model_at_end"), NO_EPOCHS),
        **dict.fromkeys(("bf16", "fp16"), "it is fitted in full precision"),
        **dict.fromkeys(("cache_frozen_frames", "frozen_copies"), "it stores the pooled output of all layers itself"),
        "pooled_dropout": "its regression is regularised by --probe_c",
        "use_weighted_layer_sum": "it reads one layer",
        "unfreeze_last_n_layers": "its encoder is frozen",
        "class_balanced_sampling": "all its classes have the same weight anyway",
        "batch_by_length": "it has no batches",
    }

    def libraries(self) -> tuple[str, ...]:
        """See `Objective`."""
        return ("scikit-learn",)

    def check(self) -> None:
        """Check that there is a trained encoder and a pooling without weights; see `Objective`."""
        super().check()
        model = self.recipe.model
        if not (model.audio_model or model.init_from):
            raise ValueError(
                "--head probe would read an encoder with random weights: give --audio_model or --init_from"
            )
        if model.pooling not in POOLED:
            raise ValueError(
                f"--pooling {model.pooling} has weights, which --head probe does not train: give --pooling "
                f"{' or '.join(POOLED)}"
            )

    def check_clips(self, train: Corpus) -> None:
        """Check that layer and C can be chosen in folds of speakers, or are given; see `Objective`."""
        if len(train.speakers) < 2 and None in (self.options.probe_layer, self.options.probe_c):
            raise ValueError(
                f"--head probe chooses layer and C in folds of training speakers, and there is only "
                f"{', '.join(train.speakers) or 'no speaker'}: give more speakers, or give --probe_layer and --probe_c"
            )

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        return build_audio_model(GEmoClapForAudioClassification, self.recipe.model, {"emotions": emotions})

    def trained_module(self, model, dataset: ClipDataset):
        """Freeze the encoder; see `Objective`."""
        model.freeze_audio_encoder()
        return model

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`."""
        values = {name: getattr(self.options, f"probe_{name}") for name in ("layer", "c", "folds")}
        return {**values, "cache_dir": self.recipe.data.feature_cache_dir}
