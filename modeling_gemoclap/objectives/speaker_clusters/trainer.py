"""The trainer of speaker clusters: InfoNCE between the clusters of a speaker, and speaker classification."""

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
ENCODER = "encoder"  # folder with only the audio tower, in the folder of the checkpoint


class SpeakerTrainer(StepTrainer):
    """Trains `SpeakerPretraining`: InfoNCE between the clusters of a speaker, and speaker classification.

    With the InfoNCE loss `L_c` (see `cluster_info_nce`) and the cross-entropy of the speakers `L_s`, the loss is `L_c`
    if the task is `"contrastive"` and `L_c + weight L_s` if it is `"multi-task"`. If it is `"adversarial"`, the loss
    is `L_c + L_s`, and the gradient of `L_s` reaches the encoder multiplied by `-weight lambda(p)`, with the schedule
    `lambda` of Ganin et al. (see `reversal_strength`).

    Clips of all processes are compared, gathered with their gradient. Averaged over the processes, loss and gradient
    equal those of one process with the complete batch. Logged in addition to `loss`: `cluster_info_nce` and
    `speaker_cross_entropy`.

    Args:
        model: A `SpeakerPretraining`, with a classifier unless the task is `"contrastive"`.
        args: `GEmoClapTrainingArguments` or `transformers.TrainingArguments`.
        *others: See `transformers.Trainer`; `train_dataset` is a `SpeakerClips`.
        task: `"contrastive"`, `"multi-task"` or `"adversarial"`.
        weight: Weight of the speaker classification.
        temperature: Temperature of InfoNCE.
        group_size: See `SpeakerClusterSampler`.
        **kwargs: See `transformers.Trainer`.

    Raises:
        ValueError: If `check` refuses the training arguments, a value is out of range, the clips do not suffice for a
            step, or training uses FSDP or DeepSpeed.
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
            speaker_task=task,
        )
        if weight == 0 and task != "contrastive":
            raise ValueError(f"speaker_weight 0 disables speaker_task {task}: give a weight above 0")
        self._task, self._weight, self._temperature, self._group_size = task, weight, temperature, group_size
        super().__init__(model, args, *others, **kwargs)
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError("speaker clusters support one process or DDP: leave out FSDP and DeepSpeed")
        self.trained_parameters = sum(p.numel() for p in self.model.encoder.parameters() if p.requires_grad)

    @property
    def trained_model(self) -> GEmoClapForXVector:
        """The encoder; see `SpeechTrainer`."""
        return self.accelerator.unwrap_model(self.model).encoder

    def create_step_sampler(self, clips_per_step: int, processes: int, seed: int) -> SpeakerClusterSampler:
        """See `StepTrainer`; warns of clips that cannot be drawn."""
        clips = self.train_dataset
        sampler = SpeakerClusterSampler(
            clips.speakers, clips.clusters, clips_per_step, processes, seed, self._group_size
        )
        if sampler.num_unused:
            logger.warning(
                f"{sampler.num_unused} of {len(clips)} clips are never drawn: their cluster has fewer than "
                f"{self._group_size // 2} clips, or their speaker has fewer than two clusters of this size"
            )
        return sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return this process's part of the loss of the global batch."""
        reversal = None
        if self._task == "adversarial":
            progress = self.state.global_step / max(1, self.state.max_steps)
            reversal = self._weight * reversal_strength(progress)
        outputs = model(reversal=reversal, **audio_inputs(inputs))
        local = at_least_float32(outputs.embeddings)
        speakers, clusters = gather(inputs["speaker_labels"]), gather(inputs["cluster_labels"])
        with torch.autocast(local.device.type, enabled=False):  # compare in full precision
            first = self.args.process_index * len(local)
            total, pairs = cluster_info_nce(local, gather(local), speakers, clusters, self._temperature, first)
            loss = contrast = total * self.args.world_size / pairs
            terms = {"cluster_info_nce": contrast}
            if outputs.speaker_logits is not None:
                cross_entropy = F.cross_entropy(at_least_float32(outputs.speaker_logits), inputs["speaker_labels"])
                terms["speaker_cross_entropy"] = cross_entropy
                loss = loss + (cross_entropy if self._task == "adversarial" else self._weight * cross_entropy)
        if model.training:
            # Every clip of the sampler has positives and negatives, so there is always something to compare.
            self.record_step((outputs.embeddings,), terms=terms)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        """Save a checkpoint to resume from completely; at the end save the encoder, and its audio tower separately."""
        folder = Path(output_dir or self.args.output_dir)
        if re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", folder.name):
            return super()._save(output_dir, state_dict)
        if not self.args.should_save:  # called on every process
            return
        encoder = self.trained_model
        self._stamp()
        encoder.save_pretrained(folder)
        set_tower_record(encoder.audio_model.config, encoder.config.training_data)
        encoder.audio_model.save_pretrained(folder / ENCODER)
        set_tower_record(encoder.audio_model.config, None)
        for target in (folder, folder / ENCODER):
            self.processing_class.save_pretrained(target)
        torch.save(self.args, folder / "training_args.bin")
