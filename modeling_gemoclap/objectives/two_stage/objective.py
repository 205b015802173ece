"""The first stage of Xiang's two: supervised contrast across corpora. The second is the classifier on its encoder."""

from __future__ import annotations

import shlex

from ...modeling_gemoclap import GEmoClapForXVector
from ...training.clips import ClipDataset
from ..audio_encoder import build_audio_model
from ..base import Objective
from .options import TwoStageOptions
from .trainer import SupConTrainer


class TwoStage(Objective):
    """InfoNCE and a cosine margin on emotion labels; the encoder is then given to `--init_from`."""

    name, title = "supcon", "two-stage supervised contrast"
    Options, trainer_class = TwoStageOptions, SupConTrainer
    predicts_emotions = reads_shards = False

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        return build_audio_model(GEmoClapForXVector, self.recipe.model, {"emotions": emotions})

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`."""
        names = ("temperature", "alpha", "margin", "negatives")
        values = {name: getattr(self.options, f"supcon_{name}") for name in names}
        corpus = dataset.corpus
        corpora = [part.name for part, _ in corpus.by_part()]
        return {**values, "corpora": corpus.part_numbers(), "names": (corpora, dataset.emotions)}

    def next_step(self, run_folder: str, protocol_options: list[str]) -> str:
        """See `Objective`."""
        start = self.recipe.model.audio_model
        words = ["--model", run_folder, "--data_dir", *self.recipe.data.data_dir, "--layer_similarity"]
        command = shlex.join([*words, *(["--before", start] if start else [])])
        return f"all folds are trained. Compare their layers: python evaluate.py {command}"
