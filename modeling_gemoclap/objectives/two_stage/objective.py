"""The first stage of Xiang's two-stage fine-tuning: supervised contrast. The second stage is the classifier."""

from __future__ import annotations

import shlex

from ...modeling_gemoclap import GEmoClapForXVector
from ...training.clips import ClipDataset
from ..audio_encoder import build_audio_model
from ..base import Objective
from .options import TwoStageOptions
from .sampler import CorpusSampling
from .trainer import SupConTrainer


class TwoStage(Objective):
    """InfoNCE and a cosine margin loss on emotion labels. The second stage starts from the encoder (`--init_from`)."""

    name, title = "supcon", "two-stage supervised contrast"
    Options, trainer_class = TwoStageOptions, SupConTrainer
    predicts_emotions = reads_shards = False

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        return build_audio_model(GEmoClapForXVector, self.recipe.model, {"emotions": emotions})

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`."""
        corpus, negatives = dataset.corpus, self.options.supcon_negatives
        names = [part.name for part, _ in corpus.by_part()]
        sampling = CorpusSampling(corpus.part_numbers(), negatives, names, dataset.emotions)
        values = {name: getattr(self.options, f"supcon_{name}") for name in ("temperature", "alpha", "margin")}
        return {**values, "sampling": sampling}

    def next_step(self, run_folder: str, protocol_options: list[str]) -> str:
        """See `Objective`."""
        start = self.recipe.model.audio_model
        options = ["--model", run_folder, "--data_dir", *self.recipe.data.data_dir, "--layer_similarity"]
        command = shlex.join([*options, *(["--before", start] if start else [])])
        return f"all folds are trained. Compare their layers: python evaluate.py {command}"
