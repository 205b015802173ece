"""Pretraining on the clusters of speaker embeddings within each speaker (Ulgen et al.): no emotion is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import ModelOutput, logging

from ..modeling_gemoclap import GEmoClapForXVector
from .arguments import refuse_values
from .clips import ClipDataset
from .collator import AudioCollator, audio_inputs
from .gather import gather, precise
from .model_card import development_of, write_model_card
from .speaker_losses import cluster_info_nce, reversal_strength, reverse_gradient
from .speaker_sampler import SpeakerClusterSampler
from .start import remember
from .step_trainer import StepTrainer

logger = logging.get_logger(__name__)
ENCODER = "encoder"  # the folder of the tower alone, beside the checkpoint


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


class SpeakerTrainer(StepTrainer):
    """Trains `SpeakerPretraining`: InfoNCE between the clusters of a speaker, and a classification of speakers.

    Under `"multi-task"` the cross-entropy of the speakers is added, times `weight`; under `"adversarial"` the
    classifier learns by the whole of it, and the encoder against it, times `weight` and Ganin's schedule. Clips are
    compared over all processes, gathered with their gradient: averaged over the processes, loss and gradient are
    those of one process with the whole batch. Logged beside `loss`: `cluster_info_nce`, `speaker_cross_entropy`.

    Args:
        model: A `SpeakerPretraining`, with a classifier unless the task is `"contrastive"`.
        args: `GEmoClapTrainingArguments`, or transformers' own.
        *others: As for `transformers.Trainer`; `train_dataset` is a `SpeakerClips`.
        task: `"contrastive"`, `"multi-task"` or `"adversarial"`.
        weight: Of the classification of speakers.
        temperature: Of InfoNCE.
        group_size: As for `SpeakerClusterSampler`.
        **kwargs: As for `transformers.Trainer`.

    Raises:
        ValueError: If `check` does not pass, a number is out of its range, or the clips are not enough for a step.
    """

    head = "speaker"

    def __init__(
        self,
        model=None,
        args=None,
        *others,
        task: str = "contrastive",
        weight: float = 0.1,
        temperature: float = 0.1,
        group_size: int = 4,
        **kwargs,
    ):
        refuse_values(speaker_temperature=temperature, speaker_weight=weight, speaker_group_size=group_size)
        if weight == 0 and task != "contrastive":
            raise ValueError(f"speaker_weight 0 leaves nothing of speaker_task {task}: give one above 0")
        self._task, self._weight, self._temperature, self._group_size = task, weight, temperature, group_size
        super().__init__(model, args, *others, **kwargs)
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError("head speaker trains on one process or by DDP: leave out FSDP and DeepSpeed")
        self.trained_parameters = sum(p.numel() for p in self.model.encoder.parameters() if p.requires_grad)

    @property
    def trained_model(self) -> GEmoClapForXVector:
        """The encoder; see `SpeechTrainer`."""
        return self.accelerator.unwrap_model(self.model).encoder

    def deal(self, step: int, processes: int, seed: int) -> SpeakerClusterSampler:
        """See `StepTrainer`; speakers and clips that cannot be drawn are told."""
        clips = self.train_dataset
        sampler = SpeakerClusterSampler(clips.speakers, clips.clusters, step, processes, seed, self._group_size)
        if sampler.left_out:
            logger.warning(
                f"{sampler.left_out} of {len(clips)} clips are never drawn: their cluster has fewer than "
                f"{self._group_size // 2} clips, or their speaker fewer than two such clusters"
            )
        return sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the loss of the global batch; see the class."""
        reversal = None
        if self._task == "adversarial":
            progress = self.state.global_step / max(1, self.state.max_steps)
            reversal = self._weight * reversal_strength(progress)
        outputs = model(reversal=reversal, **audio_inputs(inputs))
        mine = precise(outputs.embeddings)
        speakers, clusters = gather(inputs["speaker_labels"]), gather(inputs["cluster_labels"])
        with torch.autocast(mine.device.type, enabled=False):  # what is compared is not rounded
            first = self.args.process_index * len(mine)
            total, pairs = cluster_info_nce(mine, gather(mine), speakers, clusters, self._temperature, first)
            loss = contrast = total * self.args.world_size / pairs
            terms = {"cluster_info_nce": contrast}
            if outputs.speaker_logits is not None:
                named = F.cross_entropy(precise(outputs.speaker_logits), inputs["speaker_labels"])
                terms["speaker_cross_entropy"] = named
                loss = loss + (named if self._task == "adversarial" else self._weight * named)
        if model.training:
            self._rows = (outputs.embeddings,)
            self.count_comparison(False)  # the sampler gives every clip positives and negatives
            self.note(terms)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        """To go on from, everything; at the end the encoder, and beside it its tower alone."""
        folder = Path(output_dir or self.args.output_dir)
        if re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", folder.name):
            return super()._save(output_dir, state_dict)
        if not self.args.should_save:  # every process comes by
            return
        encoder = self.trained_model
        self._stamp()
        encoder.save_pretrained(folder)
        remember(encoder.audio_model.config, encoder.config.training_data)
        encoder.audio_model.save_pretrained(folder / ENCODER)
        remember(encoder.audio_model.config, None)
        for place in (folder, folder / ENCODER):
            self.processing_class.save_pretrained(place)
        torch.save(self.args, folder / "training_args.bin")

    def create_model_card(self, *args, **kwargs) -> None:
        """As `SpeechTrainer`, of the encoder."""
        if self.is_world_process_zero():
            rate, model = self.processing_class.sampling_rate, self.trained_model
            developed = development_of(self.args, self.eval_dataset, model.config.training_data)
            write_model_card(self.args.output_dir, model, self.state, rate, self.trained_parameters, developed)
