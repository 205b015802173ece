"""The model and the clips of pretraining on speaker clusters: an encoder with a speaker classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from ...modeling_gemoclap import GEmoClapForXVector
from ...training.clips import ClipDataset
from ...training.frozen import collate_audio
from ..base import AudioCollator
from .losses import reverse_gradient


@dataclass
class SpeakerOutput(ModelOutput):
    """Output of `SpeakerPretraining`.

    Args:
        embeddings: `(batch, size)`.
        speaker_logits: `(batch, speakers)`; None without a speaker classifier.
    """

    embeddings: torch.Tensor | None = None
    speaker_logits: torch.Tensor | None = None


class SpeakerPretraining(nn.Module):
    """An encoder with an optional linear speaker classifier, which is used in pretraining only.

    Args:
        encoder: The encoder.
        speakers: Number of speakers to classify; 0: no classifier.
    """

    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True

    def __init__(self, encoder: GEmoClapForXVector, speakers: int = 0):
        super().__init__()
        self.config = encoder.config
        self.audio_model, self.audio_pooling = encoder.audio_model, encoder.audio_pooling
        self.speaker_head = nn.Linear(encoder.audio_pooling.output_size, speakers) if speakers else None
        self._encoder = (encoder,)  # in a tuple, so that its parameters are not registered twice

    @property
    def encoder(self) -> GEmoClapForXVector:
        """The encoder, which is saved after pretraining."""
        return self._encoder[0]

    def gradient_checkpointing_enable(self, *args, **kwargs) -> None:
        """Enable gradient checkpointing in the encoder."""
        self.encoder.gradient_checkpointing_enable(*args, **kwargs)

    def train(self, mode: bool = True) -> SpeakerPretraining:
        """See `torch.nn.Module.train`; sets the mode of the encoder too."""
        super().train(mode)
        self.encoder.train(mode)  # after the shared modules, since frozen ones stay in evaluation mode
        return self

    def forward(self, reversal: float | None = None, **inputs) -> SpeakerOutput:
        """Embed audio and, with a classifier, classify the speakers.

        Args:
            reversal: Strength of the reversal of the classifier's gradient to the encoder; None: no reversal.
            **inputs: See `GEmoClapForXVector`.
        """
        embeddings = self.encoder(**inputs).embeddings
        if self.speaker_head is None:
            return SpeakerOutput(embeddings=embeddings)
        classified = embeddings if reversal is None else reverse_gradient(embeddings, reversal)
        return SpeakerOutput(embeddings=embeddings, speaker_logits=self.speaker_head(classified))


class SpeakerClips(ClipDataset):
    """Clips with the numbers of their speakers and clusters.

    Args:
        *args: See `ClipDataset`.
        speakers: Speaker of every clip, a number.
        clusters: Cluster of every clip within its speaker; -1: no cluster.
    """

    def __init__(self, *args, speakers: list[int], clusters: list[int]):
        super().__init__(*args)
        self.speakers, self.clusters = speakers, clusters

    def __getitem__(self, index: int) -> dict:
        """See `ClipDataset`; adds `speaker_label` and `cluster_label`."""
        place = index % len(self)
        labels = {"speaker_label": self.speakers[place], "cluster_label": self.clusters[place]}
        return super().__getitem__(index) | labels


class SpeakerCollator(AudioCollator):
    """Pads clips and adds `speaker_labels` and `cluster_labels`."""

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Collate a batch of items of `SpeakerClips`."""
        batch = collate_audio(self.extractor, examples)
        labels = {f"{name}s": [example[name] for example in examples] for name in ("speaker_label", "cluster_label")}
        return batch | {name: torch.tensor(values) for name, values in labels.items()}
