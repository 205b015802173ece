"""The trainer of speaker clusters: InfoNCE between the clusters of a speaker, and a speaker classifier."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ...command_line.ranges import check_values
from ...modeling_gemoclap import GEmoClapForXVector
from ...training.card import CardText
from ...training.clips import audio_inputs
from ...training.gather import at_least_float32, gather
from ...training.history import set_tower_record
from ..step_trainer import StepTrainer
from .losses import cluster_info_nce, reversal_strength
from .options import SpeakerClusterOptions
from .sampler import SpeakerClusterSampler

logger = logging.get_logger(__name__)
ENCODER = "encoder"  # the folder of the tower alone, beside the checkpoint


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

    card_text = CardText(
        title="an encoder that has no head yet",
        summary="An audio encoder with its pooling, pretrained on unlabelled speech "
        "([Ulgen et al.](https://arxiv.org/abs/2401.11017)): clips of one speaker in one cluster of speaker "
        "embeddings have similar embeddings. In this training, no emotion label was read{% if stage %}; before it, "
        "the model was trained as {{ stage }}{% endif %}. The model has no head and no text encoder. `train.py "
        "--init_from` starts a classifier or GEmo-CLAP from it, and `AutoModel` loads its tower alone from "
        "`encoder/`.",
        objective="InfoNCE between the clusters of a speaker",
    )

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
        check_values(
            SpeakerClusterOptions,
            speaker_temperature=temperature,
            speaker_weight=weight,
            speaker_group_size=group_size,
        )
        if weight == 0 and task != "contrastive":
            raise ValueError(f"speaker_weight 0 leaves nothing of speaker_task {task}: give one above 0")
        self._task, self._weight, self._temperature, self._group_size = task, weight, temperature, group_size
        super().__init__(model, args, *others, **kwargs)
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError("speaker clusters are trained on one process or by DDP: leave out FSDP and DeepSpeed")
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
        mine = at_least_float32(outputs.embeddings)
        speakers, clusters = gather(inputs["speaker_labels"]), gather(inputs["cluster_labels"])
        with torch.autocast(mine.device.type, enabled=False):  # what is compared is not rounded
            first = self.args.process_index * len(mine)
            total, pairs = cluster_info_nce(mine, gather(mine), speakers, clusters, self._temperature, first)
            loss = contrast = total * self.args.world_size / pairs
            terms = {"cluster_info_nce": contrast}
            if outputs.speaker_logits is not None:
                named = F.cross_entropy(at_least_float32(outputs.speaker_logits), inputs["speaker_labels"])
                terms["speaker_cross_entropy"] = named
                loss = loss + (named if self._task == "adversarial" else self._weight * named)
        if model.training:
            self.record_step((outputs.embeddings,), terms=terms)  # the sampler gives every clip both kinds of pairs
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
        set_tower_record(encoder.audio_model.config, encoder.config.training_data)
        encoder.audio_model.save_pretrained(folder / ENCODER)
        set_tower_record(encoder.audio_model.config, None)
        for place in (folder, folder / ENCODER):
            self.processing_class.save_pretrained(place)
        torch.save(self.args, folder / "training_args.bin")
