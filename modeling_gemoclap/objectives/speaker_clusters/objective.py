"""Pretraining on clusters of speaker embeddings within each speaker (Ulgen et al.), without emotion labels."""

from __future__ import annotations

import hashlib

from transformers.utils import logging

from ...corpora.manifest import Corpus
from ...modeling_gemoclap import GEmoClapForXVector
from ...training.clips import ClipDataset, ClipOptions
from ...training.gather import refuse_differences
from ..audio_encoder import build_audio_model
from ..base import Objective
from .clusters import cluster_within_speakers
from .embeddings import speaker_embeddings
from .model import SpeakerClips, SpeakerCollator, SpeakerPretraining
from .options import SpeakerClusterOptions
from .trainer import SpeakerTrainer

logger = logging.get_logger(__name__)


class SpeakerClusters(Objective):
    """InfoNCE between the clusters of a speaker. Fine-tuning starts from the encoder (`--init_from`)."""

    name, title = "speaker", "speaker clusters"
    Options, trainer_class = SpeakerClusterOptions, SpeakerTrainer
    weight_options = ("speaker_embeddings",)
    reads_emotions = predicts_emotions = reads_shards = False
    unsupported = {
        "mix_prob": "mixing another voice into a clip would change its speaker embedding",
        **dict.fromkeys(("label_fraction", "emotions", "emotion_map", "drop_other_emotions"), "no label is read"),
    }

    def check(self) -> None:
        """See `Objective`."""
        super().check()
        if self.options.speaker_weight == 0 and self.options.speaker_task != "contrastive":
            raise ValueError(
                f"--speaker_weight 0 disables --speaker_task {self.options.speaker_task}: give one above 0"
            )

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        return build_audio_model(GEmoClapForXVector, self.recipe.model, {"emotions": emotions})

    def dataset(self, corpus: Corpus, extractor, config, options: ClipOptions) -> tuple[ClipDataset, list[str]]:
        """Compute speaker embeddings and clusters, and return clips with their numbers; see `Objective`."""
        data, training = self.recipe.data, self.recipe.training
        options_of_embeddings = (data.on_bad_audio, data.feature_cache_dir, str(training.device))
        with training.main_process_first(desc="speaker embeddings"):
            corpus, embeddings, errors = speaker_embeddings(
                corpus, self.options.speaker_embeddings, *options_of_embeddings
            )
        speakers = corpus.column("speaker_id").to_pylist()
        clusters = cluster_within_speakers(embeddings, speakers, self.options.speaker_clusters, training.seed)
        for note in [*clusters.notes, *errors]:
            logger.warning(f"{corpus.name}: {note}")
        refuse_differences(hashlib.sha256(clusters.labels.tobytes()).hexdigest(), f"{corpus.name}: the clusters")
        numbers = {speaker: number for number, speaker in enumerate(corpus.speakers)}
        labels = {"speakers": [numbers[speaker] for speaker in speakers], "clusters": clusters.labels.tolist()}
        return SpeakerClips(corpus, extractor, config, options, **labels), errors

    def collator(self, processor, config):
        """See `Objective`."""
        return SpeakerCollator(processor)

    def trained_module(self, model, dataset: ClipDataset):
        """Add a speaker classifier, unless the task is contrastive; see `Objective`."""
        num_speakers = len(dataset.corpus.speakers) if self.options.speaker_task != "contrastive" else 0
        return SpeakerPretraining(super().trained_module(model, dataset), num_speakers)

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`."""
        return {
            name: getattr(self.options, f"speaker_{name}") for name in ("task", "weight", "temperature", "group_size")
        }
