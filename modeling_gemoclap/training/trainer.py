"""The trainer of the contrastive model, and that of the classifier."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn import functional as F
from transformers import TrainerCallback
from transformers.utils import logging

from ..losses_gemoclap import contrastive_loss, loss_floor
from ..modeling_gemoclap import MAX_LOGIT_SCALE
from .base_trainer import SpeechTrainer
from .collator import audio_inputs
from .gather import gather
from .lora import add_scales_to, is_lora

logger = logging.get_logger(__name__)


class _KeepScalesBounded(TrainerCallback):
    """Brings the scales back to their bound: beyond it `forward` gives them no gradient, and they would stay there."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            for scale in (model.audio_logit_scale, model.text_logit_scale):
                scale.clamp_(max=MAX_LOGIT_SCALE)


class GEmoClapTrainer(SpeechTrainer):
    """Trains `GEmoClapModel` with the exact loss of the global batch.

    `forward` is called once a backward, without labels; its embeddings are gathered over the processes, and the loss
    of the whole batch is taken from them. Batches are those of `GEmoClapCollator`.

    Logged beside `loss` (the divergence): `cross_entropy`, its floor `cross_entropy_floor` (the entropy of the
    targets), whose difference the loss is, and both scales.

    Evaluation compares audio with the class texts: `predictions` are `(clips, emotions)` cosines and `label_ids`
    the emotion labels.

    Args:
        *args: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor.

    Raises:
        ValueError: If several devices would be driven by one process (`torch.nn.DataParallel`).

    Example:
        >>> trainer = GEmoClapTrainer(
        ...     model, args, GEmoClapCollator(processor, model.config), train_dataset, processing_class=processor
        ... )
        >>> trainer.train()
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.gradient_accumulation_steps > 1:
            logger.warning("gradient accumulation does not enlarge a contrastive batch: each part has its own loss")
        self.add_callback(_KeepScalesBounded())
        self._floors: list[torch.Tensor] = []
        self._class_embeddings: torch.Tensor | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of the global batch; see the class."""
        inputs = dict(inputs)
        labels = [inputs.pop(name, None) for name in ("emotion_labels", "gender_labels")]
        labels = [label if label is None else gather(label) for label in labels]
        outputs = model(**inputs)
        embeds = {"audio_embeds": outputs.audio_embeds, "text_embeds": outputs.text_embeds}
        embeds["gender_text_embeds"] = outputs.gender_text_embeds
        gathered = {name: None if embed is None else gather(embed) for name, embed in embeds.items()}
        whole = SimpleNamespace(**gathered, audio_scale=outputs.audio_scale, text_scale=outputs.text_scale)
        terms = self.accelerator.unwrap_model(model).objective_terms(whole, *labels)
        loss = contrastive_loss(terms)
        if model.training:
            self._floors.append(loss_floor(terms).detach())
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if is_lora(self.model):
            add_scales_to(output_dir or self.args.output_dir, self.model)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add what is needed to read a loss on flat targets; see the class."""
        if "loss" in logs and self._floors:
            floor = torch.stack(self._floors).mean().item()
            logs["cross_entropy"] = round(logs["loss"] + floor, 6)
            logs["cross_entropy_floor"] = round(floor, 6)
            model = self.accelerator.unwrap_model(self.model)
            logs["audio_scale"] = round(model.audio_scale.item(), 4)
            logs["text_scale"] = round(model.text_scale.item(), 4)
            self._floors.clear()
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        """As Trainer's, with the class texts embedded once."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        self._class_embeddings = model.get_class_embeddings(
            model.config.class_prompts(), self.processing_class.tokenizer
        )
        model.train(was_training)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Cosines of a batch of clips with the class texts: `(None, (batch, emotions), (batch,))`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            embeds = self.accelerator.unwrap_model(model).get_audio_features(**audio_inputs(inputs))
        return None, (embeds @ self._class_embeddings.to(embeds).T).float(), inputs["emotion_labels"]


class ClassifierTrainer(SpeechTrainer):
    """Trains `GEmoClapForAudioClassification` by cross-entropy; batches are those of `AudioCollator`.

    Args:
        *args: As for `SpeechTrainer`.
        **kwargs: Likewise.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean cross-entropy over the clips of the global batch whose emotion is known."""
        labels = inputs["emotion_labels"]
        outputs = model(**audio_inputs(inputs))
        known = gather((labels != -1).sum()[None]).sum().clamp_min(1)
        total = F.cross_entropy(outputs.logits, labels, ignore_index=-1, reduction="sum")
        loss = total * self.args.world_size / known  # gradients are averaged over the processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Logits of a batch of clips: `(None, (batch, emotions), (batch,))`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**audio_inputs(inputs)).logits
        return None, logits.float(), inputs["emotion_labels"]
