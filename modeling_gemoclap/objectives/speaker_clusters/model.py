"""The encoder with a speaker classifier, and its clips: what is pretrained on speaker clusters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from ...modeling_gemoclap import GEmoClapForXVector
from ...training.clips import AudioCollator, ClipDataset
from .losses import reverse_gradient


@dataclass
class SpeakerOutput(ModelOutput):
    """What `SpeakerPretraining` returns.

    Args:
        embeddings: `(batch, size)`.
        speaker_logits: `(batch, speakers)`, where speakers are classified.
    """

    embeddings: torch.Tensor | None = None
    speaker_logits: torch.Tensor | None = None


class SpeakerPretraining(nn.Module):
    """An encoder and, for the time of its pretraining, a linear classifier of speakers.

    Args:
        encoder: The encoder.
        speakers: How many speakers are classified; 0: there is no classifier.
    """

    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True

    def __init__(self, encoder: GEmoClapForXVector, speakers: int = 0):
        super().__init__()
        self.config = encoder.config
        self.audio_model, self.audio_pooling = encoder.audio_model, encoder.audio_pooling
        self.speaker_head = nn.Linear(encoder.audio_pooling.output_size, speakers) if speakers else None
        self._whole = (encoder,)  # in a tuple: its parameters are here already

    @property
    def encoder(self) -> GEmoClapForXVector:
        """The encoder, which is what is kept."""
        return self._whole[0]

    def gradient_checkpointing_enable(self, *args, **kwargs) -> None:
        """As the encoder's."""
        self.encoder.gradient_checkpointing_enable(*args, **kwargs)

    def train(self, mode: bool = True) -> SpeakerPretraining:
        """As `torch.nn.Module`, of the encoder too."""
        self.encoder.train(mode)
        return super().train(mode)

    def forward(self, reversal: float | None = None, **inputs) -> SpeakerOutput:
        """Embed audio and, where there is a classifier, name the speakers.

        Args:
            reversal: The classifier's gradient reaches the encoder times minus this; None: as it is.
            **inputs: As for `GEmoClapForXVector`.
        """
        embeddings = self.encoder(**inputs).embeddings
        if self.speaker_head is None:
            return SpeakerOutput(embeddings=embeddings)
        heard = embeddings if reversal is None else reverse_gradient(embeddings, reversal)
        return SpeakerOutput(embeddings=embeddings, speaker_logits=self.speaker_head(heard))


class SpeakerClips(ClipDataset):
    """Clips with numbers of their speakers and clusters.

    Args:
        *args: As for `ClipDataset`.
        speakers: Speaker of every clip, a number.
        clusters: Cluster of every clip within its speaker; -1 is none.
    """

    def __init__(self, *args, speakers: list[int], clusters: list[int]):
        super().__init__(*args)
        self.speakers, self.clusters = speakers, clusters

    def __getitem__(self, index: int) -> dict:
        """As `ClipDataset`, with `speaker_label` and `cluster_label`."""
        place = index % len(self)
        labels = {"speaker_label": self.speakers[place], "cluster_label": self.clusters[place]}
        return super().__getitem__(index) | labels


class SpeakerCollator(AudioCollator):
    """Pads clips, with `speaker_labels` and `cluster_labels`."""

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Make a batch of items of `SpeakerClips`."""
        batch = dict(self.extractor.collate([example["clip"] for example in examples]))
        labels = {f"{name}s": [example[name] for example in examples] for name in ("speaker_label", "cluster_label")}
        return batch | {name: torch.tensor(values) for name, values in labels.items()}
